//! The pickle of a PyTorch checkpoint: the names, shapes and storages of its tensors.
//!
//! It runs no code: a pickle's calls are looked up among the few that `torch.save` writes, all others make an opaque
//! value. Values lie in one list and name each other by their place there, so that neither nesting nor sharing costs more
//! than the bytes that say it.
//!
//! Source: `pickletools` of Python 3.11 for the operations, `torch/_utils.py` and `torch/serialization.py` of PyTorch 2.5
//! for the calls.

use std::collections::{BTreeMap, HashMap};

use crate::dtype::Dtype;

/// A tensor of a checkpoint: a part of a storage, which is a file of the archive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// Numbers from one element to the next, in each dimension.
    pub(crate) strides: Vec<usize>,
    /// Numbers of the storage before the first element.
    pub(crate) offset: usize,
    /// The storage's name.
    pub(crate) storage: String,
}

impl TensorInfo {
    /// Number of elements; none where that is no `usize`.
    pub(crate) fn elements(&self) -> Option<usize> {
        product(&self.shape)
    }

    /// True where elements lie row by row, without gaps.
    pub(crate) fn is_row_major(&self) -> bool {
        self.is_dense(self.shape.iter().zip(&self.strides).rev())
    }

    /// True where elements lie column by column, without gaps: a transposed tensor was saved.
    pub(crate) fn is_column_major(&self) -> bool {
        self.is_dense(self.shape.iter().zip(&self.strides))
    }

    /// Follows the dimensions from the one that changes fastest. The stride of a dimension of one element means nothing.
    fn is_dense<'a>(&self, dimensions: impl Iterator<Item = (&'a usize, &'a usize)>) -> bool {
        let mut expected = 1_usize;
        for (&n, &stride) in dimensions {
            if n > 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(n);
        }
        self.strides.len() == self.shape.len()
    }
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))
}

/// Reads the tensors of a state dict by name; those of other number formats, such as integer buffers, are left out.
///
/// # Errors
/// The operation that cannot be read, and its place.
pub(crate) fn tensors(pickle: &[u8]) -> Result<BTreeMap<String, TensorInfo>, String> {
    let mut machine = Machine::default();
    let mut input = Input { bytes: pickle };
    let root = loop {
        let at = pickle.len() - input.bytes.len();
        let done = machine.step(&mut input);
        let done = done.map_err(|problem| format!("{problem} at byte {at} of its pickle"))?;
        if let Some(root) = done {
            break root;
        }
    };
    let Value::Dict(entries) = &machine.values[root] else {
        return Err("its pickle holds no dictionary of tensors".into());
    };
    let named = entries.iter().filter_map(|(key, value)| {
        match (&machine.values[*key], &machine.values[*value]) {
            (Value::Text(name), Value::Tensor(info)) => Some((name.clone(), info.clone())),
            _ => None,
        }
    });
    Ok(named.collect())
}

/// The place of a value in [`Machine::values`].
type Place = usize;

#[derive(Debug)]
enum Value {
    Int(i64),
    Text(String),
    /// A tuple or a list.
    Sequence(Vec<Place>),
    Dict(Vec<(Place, Place)>),
    /// A function or a class: its module and its name.
    Global(String, String),
    /// A file of the archive that holds numbers; no format: none that weights come in.
    Storage(Option<Dtype>, String),
    Tensor(TensorInfo),
    /// Whatever else there is.
    Opaque,
}

#[derive(Default)]
struct Machine {
    values: Vec<Value>,
    stack: Vec<Place>,
    /// Lengths of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Place>,
}

impl Machine {
    /// Runs one operation; returns the result at the end.
    fn step(&mut self, input: &mut Input<'_>) -> Result<Option<Place>, String> {
        let operation = input.byte()?;
        match operation {
            // PROTO, FRAME
            0x80 => drop(input.take(1)?),
            0x95 => drop(input.take(8)?),
            b'.' => return Ok(Some(self.pop()?)),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            // NONE, NEWTRUE, NEWFALSE
            b'N' | 0x88 | 0x89 => self.push(Value::Opaque),
            b'K' => self.push(Value::Int(input.byte()?.into())),
            b'M' => {
                let n = u16::from_le_bytes(input.array()?);
                self.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(input.array()?);
                self.push(Value::Int(n.into()));
            }
            0x8a => {
                let n = usize::from(input.byte()?);
                let value = long(input.take(n)?);
                self.push(value);
            }
            b'G' => {
                input.take(8)?;
                self.push(Value::Opaque);
            }
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, and the strings of Python 2
            b'X' | b'T' => self.text(input, 4)?,
            0x8c | b'U' => self.text(input, 1)?,
            0x8d => self.text(input, 8)?,
            // BINBYTES, SHORT_BINBYTES
            b'B' => self.skip_bytes(input, 4)?,
            b'C' => self.skip_bytes(input, 1)?,
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' | b')' => self.push(Value::Sequence(Vec::new())),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Value::Sequence(items));
            }
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(operation - 0x84))?;
                self.push(Value::Sequence(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let pair = self.pop_many(2)?;
                self.set_items(&pair)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'q' => {
                let key = input.byte()?.into();
                self.remember(key)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(input.array()?);
                self.remember(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| "too many values")?;
                self.remember(key)?;
            }
            b'h' => {
                let key = input.byte()?.into();
                self.recall(key)?;
            }
            b'j' => {
                let key = u32::from_le_bytes(input.array()?);
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (input.line()?, input.line()?);
                self.push(Value::Global(module, name));
            }
            0x93 => {
                let names = self.pop_many(2)?;
                let text = |place: &Place| match &self.values[*place] {
                    Value::Text(text) => Ok(text.clone()),
                    other => Err(format!("{other:?} is no name")),
                };
                let global = Value::Global(text(&names[0])?, text(&names[1])?);
                self.push(global);
            }
            b'Q' => self.storage()?,
            // REDUCE, NEWOBJ
            b'R' | 0x81 => self.call()?,
            // BUILD: the attributes of a dictionary, such as `_metadata`, are no tensors.
            b'b' => drop(self.pop()?),
            other => return Err(format!("operation 0x{other:02x} is not supported")),
        }
        Ok(None)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    /// Takes the top of the stack, above the last mark.
    fn pop(&mut self) -> Result<Place, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("the stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "the stack is empty".into())
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Place>, String> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        Ok(items)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Place>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&mut self) -> Result<&mut Value, String> {
        let place = *self.stack.last().ok_or("the stack is empty")?;
        Ok(&mut self.values[place])
    }

    fn text(&mut self, input: &mut Input<'_>, length_bytes: usize) -> Result<(), String> {
        let bytes = input.counted(length_bytes)?;
        let text = std::str::from_utf8(bytes).map_err(|e| format!("a text is not UTF-8: {e}"))?;
        self.push(Value::Text(text.to_owned()));
        Ok(())
    }

    fn skip_bytes(&mut self, input: &mut Input<'_>, length_bytes: usize) -> Result<(), String> {
        input.counted(length_bytes)?;
        self.push(Value::Opaque);
        Ok(())
    }

    fn append(&mut self, items: Vec<Place>) -> Result<(), String> {
        match self.top()? {
            Value::Sequence(list) => list.extend(items),
            Value::Opaque => {}
            other => return Err(format!("{other:?} is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Place]) -> Result<(), String> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key has no value".into());
        }
        match self.top()? {
            Value::Dict(entries) => entries.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Value::Opaque => {}
            other => return Err(format!("{other:?} is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let place = *self.stack.last().ok_or("the stack is empty")?;
        self.memo.insert(key, place);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let place = self.memo.get(&key).copied();
        let place = place.ok_or_else(|| format!("value {key} is not remembered"))?;
        self.stack.push(place);
        Ok(())
    }

    /// A persistent id: `("storage", CLASS, NAME, DEVICE, LENGTH)`.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Sequence(parts) = &self.values[id] else {
            return Err("a storage is not described by a tuple".into());
        };
        let part = |i: usize| parts.get(i).map(|place| &self.values[*place]);
        let (Some(Value::Global(_, class)), Some(Value::Text(name))) = (part(1), part(2)) else {
            return Err("a storage has no class or no name".into());
        };
        let dtype = match class.as_str() {
            "FloatStorage" => Some(Dtype::F32),
            "HalfStorage" => Some(Dtype::F16),
            "BFloat16Storage" => Some(Dtype::BF16),
            "DoubleStorage" => Some(Dtype::F64),
            _ => None,
        };
        let storage = Value::Storage(dtype, name.clone());
        self.push(storage);
        Ok(())
    }

    fn call(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let result = match (&self.values[callee], &self.values[arguments]) {
            (Value::Global(module, name), Value::Sequence(arguments)) => {
                match (module.as_str(), name.as_str()) {
                    ("collections", "OrderedDict") if arguments.is_empty() => {
                        Value::Dict(Vec::new())
                    }
                    ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => {
                        self.rebuilt_tensor(arguments)?
                    }
                    ("torch._utils", "_rebuild_parameter") => {
                        match arguments.first().map(|first| &self.values[*first]) {
                            Some(Value::Tensor(info)) => Value::Tensor(info.clone()),
                            _ => Value::Opaque,
                        }
                    }
                    _ => Value::Opaque,
                }
            }
            _ => Value::Opaque,
        };
        self.push(result);
        Ok(())
    }

    /// The arguments are `(storage, offset, shape, strides, ...)`.
    fn rebuilt_tensor(&self, arguments: &[Place]) -> Result<Value, String> {
        let argument = |i: usize| arguments.get(i).map(|place| &self.values[*place]);
        let (
            Some(Value::Storage(dtype, storage)),
            Some(offset),
            Some(Value::Sequence(shape)),
            Some(Value::Sequence(strides)),
        ) = (argument(0), argument(1), argument(2), argument(3))
        else {
            return Err("a tensor's description has other members than PyTorch's".into());
        };
        let numbers = |places: &[Place]| places.iter().map(|p| count(&self.values[*p])).collect();
        let (shape, strides): (Vec<usize>, Vec<usize>) = match (numbers(shape), numbers(strides)) {
            (Some(shape), Some(strides)) => (shape, strides),
            _ => return Err("a tensor's shape or strides are no counts".into()),
        };
        let offset = count(offset).ok_or("a tensor's offset is no count")?;
        let Some(dtype) = *dtype else {
            return Ok(Value::Opaque);
        };
        Ok(Value::Tensor(TensorInfo {
            dtype,
            shape,
            strides,
            offset,
            storage: storage.clone(),
        }))
    }
}

fn count(value: &Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

/// Two's complement, lowest byte first, of any length; opaque where it is too large to be a count.
fn long(bytes: &[u8]) -> Value {
    let fill = match bytes.last() {
        Some(last) if last & 0x80 != 0 => 0xff,
        _ => 0,
    };
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let mut whole = [fill; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(whole))
}

/// The bytes that are left to read.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or("it is cut off")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or("it is cut off")?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// Bytes behind their length, which is a number of so many bytes.
    fn counted(&mut self, length_bytes: usize) -> Result<&'a [u8], String> {
        let length = self.take(length_bytes)?.iter().rev();
        let length = length.fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        self.take(usize::try_from(length).map_err(|_| "it is cut off")?)
    }

    /// A name up to the end of its line.
    fn line(&mut self) -> Result<String, String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or("it is cut off")?)?;
        self.take(1)?;
        let line = std::str::from_utf8(line).map_err(|e| format!("a name is not UTF-8: {e}"))?;
        Ok(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(shape: &[usize], strides: &[usize]) -> TensorInfo {
        TensorInfo {
            dtype: Dtype::F32,
            shape: shape.into(),
            strides: strides.into(),
            offset: 0,
            storage: "0".into(),
        }
    }

    /// `{"w": torch.zeros(2, 3)}` as `torch.save` of PyTorch 2.5 writes it, less its memo.
    fn saved() -> Vec<u8> {
        let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n".to_vec();
        pickle.extend(
            b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ",
        );
        pickle.extend(b"K\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.");
        pickle
    }

    #[test]
    fn a_saved_tensor_is_described() {
        let found = tensors(&saved()).unwrap();
        assert_eq!(
            found,
            BTreeMap::from([("w".into(), info(&[2, 3], &[3, 1]))])
        );
    }

    #[test]
    fn whatever_is_cut_off_or_changed_is_an_error_or_another_description() {
        let whole = saved();
        for end in 0..whole.len() {
            assert!(tensors(&whole[..end]).is_err(), "{end}");
        }
        for i in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[i] ^= 1 << bit;
                // No panic; what it says is judged by who reads the tensors.
                drop(tensors(&changed));
            }
        }
    }

    #[test]
    fn a_million_values_within_each_other_need_no_stack() {
        let mut pickle = b"]".repeat(1 << 20);
        pickle.extend(b"a".repeat((1 << 20) - 1));
        pickle.push(b'.');
        assert_eq!(
            tensors(&pickle).unwrap_err(),
            "its pickle holds no dictionary of tensors"
        );
    }

    #[test]
    fn nothing_is_called() {
        let error = tensors(b"cos\nsystem\nX\x02\0\0\0ls\x85R.").unwrap_err();
        assert_eq!(error, "its pickle holds no dictionary of tensors");
    }

    #[test]
    fn layouts_are_told_from_strides() {
        let row = info(&[2, 3], &[3, 1]);
        assert!(row.is_row_major() && !row.is_column_major());
        let column = info(&[2, 3], &[1, 2]);
        assert!(!column.is_row_major() && column.is_column_major());
        let part = info(&[2, 3], &[4, 1]);
        assert!(!part.is_row_major() && !part.is_column_major());
        assert!(info(&[1, 3], &[7, 1]).is_row_major());
        assert!(info(&[], &[]).is_row_major());
        assert_eq!(info(&[usize::MAX, 2], &[1, 1]).elements(), None);
    }
}
