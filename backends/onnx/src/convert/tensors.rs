//! The constants of a graph: the model's tensors, as they are or computed from, and small numbers; large ones go straight
//! to the data file.

mod stored;

use std::io;

use self::stored::{Header, element_of, halves, little_endian, stored, stored_numbers};
use super::{ConvertError, ReadTensor, data::DataFile, transposed::transposed};
use crate::proto::{Tensor, element};

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
    /// No constants yet; `source` lends the model's tensors.
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

    /// Flushes the data file, and returns the constants.
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
                ..Header { name, dims }.tensor(data_type)
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
                    let dims = &[inputs, outputs];
                    stored_numbers(data, Header { name, dims }, &turned, is_half)
                }
                _ => stored_numbers(data, Header { name, dims: shape }, values, is_half),
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
        dims: &[usize],
        values: &[f32],
    ) -> Result<String, ConvertError> {
        let header = Header { name, dims };
        let tensor = stored_numbers(&mut self.data, header, values, self.is_half);
        self.keep(tensor)
    }

    /// Adds a tensor of signed bytes.
    pub(super) fn bytes(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[i8],
    ) -> Result<String, ConvertError> {
        let raw = values.iter().map(|v| v.to_le_bytes());
        let tensor = stored(&mut self.data, Header { name, dims }, element::INT8, raw);
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
