//! The tensors around a call: sequences padded to one length going in, rows of sequences coming out.

use std::borrow::Cow;

use embedgate_core::{BackendError, EncoderConfig, TokenBatch};
use half::f16;
use ort::{
    session::{SessionInputValue, SessionOutputs},
    value::{Tensor, TensorElementType},
};

use crate::wiring::{
    Element,
    inputs::{Input, Role},
};

/// Sequences of one class, each padded to the longest, shape `(batch, length)`.
pub(crate) struct Padded {
    pub(crate) lengths: Vec<usize>,
    pub(crate) length: usize,
    ids: Vec<u32>,
    segments: Vec<u32>,
    positions: Vec<u32>,
    /// The place of the adapter that is applied.
    pub(crate) task: u32,
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
            task: 0,
        };
        let applied = encoder
            .adapters
            .as_ref()
            .and_then(|adapters| adapters.applied);
        padded.task = applied
            .and_then(|place| u32::try_from(place).ok())
            .unwrap_or(0);
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
            Role::Ids => self.tensor(&self.ids, input.element),
            Role::Segments => self.tensor(&self.segments, input.element),
            Role::Positions => self.tensor(&self.positions, input.element),
            Role::Past { heads, size } => {
                let shape = [self.lengths.len(), heads, 0, size];
                Ok(match input.element {
                    Element::F16 => Tensor::from_array((shape, Vec::<f16>::new()))?.into(),
                    _ => Tensor::from_array((shape, Vec::<f32>::new()))?.into(),
                })
            }
            Role::Task { is_list } => {
                let shape: &[usize] = if is_list { &[1] } else { &[] };
                integers(shape.to_vec(), &[self.task], input.element)
            }
            Role::Mask => {
                let row = |n: &usize| {
                    (0..self.length)
                        .map(|at| u32::from(at < *n))
                        .collect::<Vec<_>>()
                };
                let mask: Vec<u32> = self.lengths.iter().flat_map(row).collect();
                self.tensor(&mask, input.element)
            }
        }
    }

    fn tensor(&self, values: &[u32], element: Element) -> ort::Result<SessionInputValue<'static>> {
        integers(vec![self.lengths.len(), self.length], values, element)
    }
}

fn integers(
    shape: Vec<usize>,
    values: &[u32],
    element: Element,
) -> ort::Result<SessionInputValue<'static>> {
    if element == Element::I32 {
        let values: Vec<i32> = values.iter().map(|v| v.cast_signed()).collect();
        return Ok(Tensor::from_array((shape, values))?.into());
    }
    let values: Vec<i64> = values.iter().map(|v| i64::from(*v)).collect();
    Ok(Tensor::from_array((shape, values))?.into())
}

/// An output as rows of sequences, shape `(batch, length, width)`.
pub(crate) struct Rows<'a> {
    data: Cow<'a, [f32]>,
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
        let unreadable = |e| BackendError::inference("an output cannot be read", e);
        let (shape, data) = match value.dtype().tensor_type() {
            Some(TensorElementType::Float16) => {
                let (shape, halves) = value.try_extract_tensor::<f16>().map_err(unreadable)?;
                let wide = halves.iter().map(|x| x.to_f32()).collect();
                (shape, Cow::Owned(wide))
            }
            _ => {
                let (shape, data) = value.try_extract_tensor::<f32>().map_err(unreadable)?;
                (shape, Cow::Borrowed(data))
            }
        };
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
    ) -> Result<&[f32], BackendError> {
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
