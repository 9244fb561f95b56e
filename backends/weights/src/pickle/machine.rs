//! The machine that a pickle is a program of: a stack, marks, a memo, and the values that were made.

mod torch;

use std::collections::{BTreeMap, HashMap};

use super::{input::Input, tensor::TensorInfo};
use crate::dtype::Dtype;

/// The place of a value in [`Machine::values`].
pub(super) type Place = usize;

/// A value of a pickle.
#[derive(Debug)]
pub(super) enum Value {
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

/// The state between two operations.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) values: Vec<Value>,
    /// Bytes of a number of each storage, by its name; without those of a class that is not known.
    pub(super) storages: BTreeMap<String, usize>,
    stack: Vec<Place>,
    /// Lengths of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Place>,
}

impl Machine {
    /// Runs one operation; returns the result at the end.
    pub(super) fn step(&mut self, input: &mut Input<'_>) -> Result<Option<Place>, String> {
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
