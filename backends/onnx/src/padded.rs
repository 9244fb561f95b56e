//! The tensors around a call: sequences padded to one length going in, rows of sequences coming out.

use embedgate_core::{BackendError, EncoderConfig, TokenBatch};
use ort::{
    session::{SessionInputValue, SessionOutputs},
    value::Tensor,
};

use crate::wiring::inputs::{Input, Role};

/// Sequences of one class, each padded to the longest, shape `(batch, length)`.
pub(crate) struct Padded {
    pub(crate) lengths: Vec<usize>,
    pub(crate) length: usize,
    ids: Vec<u32>,
    segments: Vec<u32>,
    positions: Vec<u32>,
}

impl Padded {
    /// Pads the sequences of a class.
    pub(crate) fn new(batch: &TokenBatch, class: &[usize], encoder: &EncoderConfig) -> Self {
        let lengths: Vec<usize> = class.iter().map(|&i| batch.sequence(i).ids.len()).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        let cells = class.len() * length;
        let mut padded = Self {
            length,
            ids: Vec::with_capacity(cells),
            segments: Vec::with_capacity(cells),
            positions: Vec::with_capacity(cells),
            lengths,
        };
        for (at, &i) in class.iter().enumerate() {
            let sequence = batch.sequence(i);
            padded.ids.extend_from_slice(sequence.ids);
            padded.segments.extend_from_slice(sequence.type_ids);
            padded.positions.extend(encoder.position_ids(sequence.ids));
            let end = (at + 1) * length;
            padded.ids.resize(end, encoder.pad_token_id);
            padded.segments.resize(end, 0);
            padded.positions.resize(end, 0);
        }
        padded
    }

    /// Makes the tensor of an input.
    pub(crate) fn input(&self, input: &Input) -> ort::Result<SessionInputValue<'static>> {
        match input.role {
            Role::Ids => self.tensor(&self.ids, input.narrow),
            Role::Segments => self.tensor(&self.segments, input.narrow),
            Role::Positions => self.tensor(&self.positions, input.narrow),
            Role::Mask => {
                let row = |n: &usize| {
                    (0..self.length)
                        .map(|at| u32::from(at < *n))
                        .collect::<Vec<_>>()
                };
                let mask: Vec<u32> = self.lengths.iter().flat_map(row).collect();
                self.tensor(&mask, input.narrow)
            }
        }
    }

    fn tensor(&self, values: &[u32], narrow: bool) -> ort::Result<SessionInputValue<'static>> {
        let shape = [self.lengths.len(), self.length];
        if narrow {
            let values: Vec<i32> = values.iter().map(|v| v.cast_signed()).collect();
            return Ok(Tensor::from_array((shape, values))?.into());
        }
        let values: Vec<i64> = values.iter().map(|v| i64::from(*v)).collect();
        Ok(Tensor::from_array((shape, values))?.into())
    }
}

/// An output as rows of sequences, shape `(batch, length, width)`.
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    /// Rows of a sequence: tokens, or 1 where the model has pooled them.
    pub(crate) length: usize,
    width: usize,
}

/// The shape that an output must have to be what its name says.
#[derive(Clone, Copy)]
pub(crate) enum Expected {
    /// `(batch, width)`; a score has width 1.
    Pooled { width: usize },
    /// `(batch, length, width)`, or one token less where the model leaves the first one out.
    Tokens { length: usize, width: usize },
    /// A weight a token: `(batch, length, 1)` or `(batch, length)`.
    Weights { length: usize },
}

impl<'a> Rows<'a> {
    /// Finds an output by name and checks its shape.
    pub(crate) fn of(
        outputs: &'a SessionOutputs<'_>,
        name: &str,
        expected: Expected,
    ) -> Result<Self, BackendError> {
        let missing = || {
            BackendError::inference(
                "the model gave too few outputs",
                format!("\"{name}\" is missing"),
            )
        };
        let value = outputs.get(name).ok_or_else(missing)?;
        let (shape, data) = value
            .try_extract_tensor::<f32>()
            .map_err(|e| BackendError::inference("an output cannot be read", e))?;
        let dims: Vec<usize> = shape
            .iter()
            .map(|dim| usize::try_from(*dim).unwrap_or(0))
            .collect();
        let fits = match (expected, &dims[..]) {
            (Expected::Pooled { width }, &[_, w]) if w == width => Some((1, width)),
            (Expected::Tokens { length, width }, &[_, n, w])
                if w == width && (n == length || n + 1 == length) =>
            {
                Some((n, width))
            }
            (Expected::Weights { length }, &[_, n] | &[_, n, 1]) if n == length => {
                Some((length, 1))
            }
            _ => None,
        };
        let (length, width) = fits.ok_or_else(|| {
            let problem = format!("\"{name}\" has shape {dims:?}");
            BackendError::inference("an output has another shape than its name says", problem)
        })?;
        Ok(Self {
            data,
            length,
            width,
        })
    }

    /// `n` rows of one sequence, from row `first` on.
    pub(crate) fn get(
        &self,
        sequence: usize,
        first: usize,
        n: usize,
    ) -> Result<&'a [f32], BackendError> {
        let start = (sequence * self.length + first) * self.width;
        let within = first + n <= self.length;
        self.data
            .get(start..start + n * self.width)
            .filter(|_| within)
            .ok_or_else(|| {
                BackendError::inference(
                    "an output has too few rows",
                    format!("{n} rows from {first} of {}", self.length),
                )
            })
    }
}
