//! The calls by which PyTorch describes tensors and their storages. Any other call makes an opaque value.

use super::{Machine, Place, Value};
use crate::{dtype::Dtype, pickle::tensor::TensorInfo};

impl Machine {
    /// A persistent id: `("storage", CLASS, NAME, DEVICE, LENGTH)`, in old checkpoints with a part of another storage, or none,
    /// behind.
    pub(super) fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Value::Sequence(parts) = &self.values[id] else {
            return Err("a storage is not described by a tuple".into());
        };
        let part = |i: usize| parts.get(i).map(|place| &self.values[*place]);
        let (Some(Value::Global(_, class)), Some(Value::Text(name))) = (part(1), part(2)) else {
            return Err("a storage has no class or no name".into());
        };
        if let Some(Value::Sequence(_)) = part(5) {
            return Err("a storage is a part of another".into());
        }
        let dtype = match class.as_str() {
            "FloatStorage" => Some(Dtype::F32),
            "HalfStorage" => Some(Dtype::F16),
            "BFloat16Storage" => Some(Dtype::BF16),
            "DoubleStorage" => Some(Dtype::F64),
            _ => None,
        };
        let of_integer = match class.as_str() {
            "LongStorage" => Some(8),
            "IntStorage" => Some(4),
            "ShortStorage" => Some(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Some(1),
            _ => None,
        };
        if let Some(bytes) = dtype.map(Dtype::bytes).or(of_integer) {
            self.storages.insert(name.clone(), bytes);
        }
        let storage = Value::Storage(dtype, name.clone());
        self.push(storage);
        Ok(())
    }

    /// Makes the value of a call: the callee and its arguments are on the stack.
    pub(super) fn call(&mut self) -> Result<(), String> {
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

/// A value as a count.
fn count(value: &Value) -> Option<usize> {
    match value {
        Value::Int(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}
