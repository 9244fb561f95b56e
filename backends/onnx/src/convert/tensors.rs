//! The constants of a graph: the model's tensors, as they are or computed from, and small numbers; large ones go straight
//! to the data file.

use std::io;

use half::f16;

use super::{ConvertError, ReadTensor, data::DataFile};
use crate::proto::{EXTERNAL, Entry, Tensor, element};

/// Tensors up to this many numbers stay in the model file, where ONNX Runtime's fusions can read them; the rest lie in
/// the data file, where they can be mapped.
const INLINE: usize = 4096;

/// The layout of a weight's numbers in the graph, compared with PyTorch's.
#[derive(Clone, Copy)]
pub(super) enum Store {
    AsIs,
    /// `(outputs, inputs)` becomes `(inputs, outputs)`, which is what `MatMul` takes.
    Transposed,
}

/// The constants of a graph in the making. They go by name, and each method returns the name that it added.
pub(super) struct Tensors<'a, 'r> {
    made: Vec<Tensor>,
    data: DataFile,
    source: &'a mut ReadTensor<'r>,
    /// True where numbers are stored in f16.
    is_half: bool,
}

impl<'a, 'r> Tensors<'a, 'r> {
    pub(super) fn new(data: DataFile, source: &'a mut ReadTensor<'r>, is_half: bool) -> Self {
        Self {
            made: Vec::new(),
            data,
            source,
            is_half,
        }
    }

    /// The element type of numbers.
    pub(super) fn element(&self) -> i32 {
        element_of(self.is_half)
    }

    pub(super) fn finish(self) -> Result<Vec<Tensor>, ConvertError> {
        self.data.finish()?;
        Ok(self.made)
    }

    /// A small constant of integers, added the first time it is asked for, as the others are.
    pub(super) fn ints(&mut self, name: &str, values: &[i64], dims: &[usize]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, element::INT64, dims, raw)
    }

    /// A small constant of numbers.
    pub(super) fn constants(&mut self, name: &str, values: &[f32], dims: &[usize]) -> String {
        let raw = match self.is_half {
            false => little_endian(values).flatten().collect(),
            true => halves(values).flatten().collect(),
        };
        self.constant(name, self.element(), dims, raw)
    }

    /// A constant of one byte.
    pub(super) fn byte(&mut self, name: &str, value: u8) -> String {
        self.constant(name, element::UINT8, &[], vec![value])
    }

    /// A constant of one signed byte.
    pub(super) fn signed_byte(&mut self, name: &str, value: i8) -> String {
        self.constant(name, element::INT8, &[], value.to_le_bytes().into())
    }

    /// A constant of one number.
    pub(super) fn float(&mut self, name: &str, value: f32) -> String {
        self.constants(name, &[value], &[])
    }

    fn constant(&mut self, name: &str, data_type: i32, dims: &[usize], raw: Vec<u8>) -> String {
        if !self.made.iter().any(|tensor| tensor.name == name) {
            self.made.push(Tensor {
                raw_data: raw,
                ..tensor(name, data_type, dims)
            });
        }
        name.into()
    }

    /// Adds one of the model's tensors under its own name.
    pub(super) fn weight(
        &mut self,
        name: &str,
        shape: &[usize],
        store: Store,
    ) -> Result<String, ConvertError> {
        let (data, made, is_half) = (&mut self.data, &mut self.made, self.is_half);
        let path = data.path.clone();
        let added = (self.source)(name, shape, &mut |values| {
            let tensor = match (store, shape) {
                (Store::Transposed, &[outputs, inputs]) => {
                    let turned = transposed(values, outputs, inputs);
                    stored_numbers(data, name, &[inputs, outputs], &turned, is_half)
                }
                _ => stored_numbers(data, name, shape, values, is_half),
            };
            made.push(tensor?);
            Ok(())
        });
        added.map_err(|e| match e {
            // An error of writing knows its file only here.
            ConvertError::Write { source, .. } => ConvertError::Write { path, source },
            other => other,
        })?;
        Ok(name.into())
    }

    /// Adds a tensor of numbers that were computed from the model's.
    pub(super) fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[f32],
    ) -> Result<String, ConvertError> {
        let tensor = stored_numbers(&mut self.data, name, shape, values, self.is_half);
        self.keep(tensor)
    }

    /// Adds a tensor of signed bytes.
    pub(super) fn bytes(
        &mut self,
        name: &str,
        shape: &[usize],
        values: &[i8],
    ) -> Result<String, ConvertError> {
        let raw = values.iter().map(|v| v.to_le_bytes());
        let tensor = stored(&mut self.data, name, element::INT8, shape, raw);
        self.keep(tensor)
    }

    /// Lends the numbers of one of the model's tensors.
    pub(super) fn lend<T>(
        &mut self,
        name: &str,
        shape: &[usize],
        mut use_them: impl FnMut(&[f32]) -> T,
    ) -> Result<T, ConvertError> {
        let mut result = None;
        (self.source)(name, shape, &mut |values| {
            result = Some(use_them(values));
            Ok(())
        })?;
        result.ok_or_else(|| ConvertError::Weights(format!("{name} was not read").into()))
    }

    /// A copy of one of the model's tensors.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ConvertError> {
        self.lend(name, shape, <[f32]>::to_vec)
    }

    fn keep(&mut self, tensor: io::Result<Tensor>) -> Result<String, ConvertError> {
        let tensor = tensor.map_err(|source| ConvertError::Write {
            path: self.data.path.clone(),
            source,
        })?;
        let name = tensor.name.clone();
        self.made.push(tensor);
        Ok(name)
    }
}

fn tensor(name: &str, data_type: i32, dims: &[usize]) -> Tensor {
    Tensor {
        dims: dims.iter().map(|dim| *dim as i64).collect(),
        data_type,
        name: name.into(),
        ..Tensor::default()
    }
}

fn element_of(is_half: bool) -> i32 {
    if is_half {
        element::FLOAT16
    } else {
        element::FLOAT
    }
}

/// A tensor of numbers, in f32 or rounded to f16, which has to hold them.
fn stored_numbers(
    data: &mut DataFile,
    name: &str,
    dims: &[usize],
    values: &[f32],
    is_half: bool,
) -> io::Result<Tensor> {
    if !is_half {
        return stored(data, name, element::FLOAT, dims, little_endian(values));
    }
    let largest = f16::MAX.to_f32();
    if let Some(large) = values.iter().find(|v| v.abs() > largest || v.is_nan()) {
        let problem = format!("{name} holds {large}, f16 ends at {largest}: convert to f32");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    stored(data, name, element::FLOAT16, dims, halves(values))
}

/// A tensor that holds its numbers, or says where in the data file they lie now.
fn stored<const N: usize>(
    data: &mut DataFile,
    name: &str,
    data_type: i32,
    dims: &[usize],
    raw: impl Iterator<Item = [u8; N]>,
) -> io::Result<Tensor> {
    let tensor = tensor(name, data_type, dims);
    if dims.iter().product::<usize>() <= INLINE {
        let raw_data = raw.flatten().collect();
        return Ok(Tensor { raw_data, ..tensor });
    }
    let extent = data.append(raw)?;
    let entries = [
        ("location", data.name()),
        ("offset", extent.start.to_string()),
        ("length", (extent.end - extent.start).to_string()),
    ];
    let external_data = entries.map(|(key, value)| Entry {
        key: key.into(),
        value,
    });
    Ok(Tensor {
        external_data: external_data.into(),
        data_location: EXTERNAL,
        ..tensor
    })
}

fn little_endian(values: &[f32]) -> impl Iterator<Item = [u8; 4]> {
    values.iter().map(|v| v.to_le_bytes())
}

fn halves(values: &[f32]) -> impl Iterator<Item = [u8; 2]> {
    values.iter().map(|v| f16::from_f32(*v).to_le_bytes())
}

/// Turns `(rows, columns)` into `(columns, rows)`, in blocks that stay in the cache.
pub(super) fn transposed<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut turned = vec![T::default(); values.len()];
    for row_block in (0..rows).step_by(BLOCK) {
        for column_block in (0..columns).step_by(BLOCK) {
            for row in row_block..(row_block + BLOCK).min(rows) {
                for column in column_block..(column_block + BLOCK).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_matrix_has_each_number_at_its_mirror_place() {
        let (rows, columns) = (45, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let turned = transposed(&values, rows, columns);
        for row in 0..rows {
            for column in 0..columns {
                assert_eq!(turned[column * rows + row], values[row * columns + column]);
            }
        }
    }
}
