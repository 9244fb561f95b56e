//! Reads a model's weights onto a device, some rows at a time: there is no copy of them in f32, nor of the model in the host's memory.

use std::sync::Arc;

use embedgate_core::EncoderConfig;
use embedgate_weights::{Weights, WeightsError};
use thiserror::Error;

use crate::{
    device::{Buffer, Stream},
    error::DriverError,
    format::Format,
    kernels::Kernels,
    linear::{Linear, Products, STEP},
};

/// The reason why a model cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A number is too large for the format.
    #[error("tensor \"{name}\" holds {value}, and {format} ends at {}{}", format.largest(), format.advice())]
    TooLarge {
        name: String,
        value: f32,
        format: Format,
    },
    #[error("{0}")]
    Unfit(String),
}

/// The layout of attention heads: each head is padded to what kernels have, and heads of zeros make the row a multiple of
/// [`STEP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadLayout {
    /// The number of the model's heads; `size` is the count of numbers in one head.
    n: usize,
    size: usize,
    /// The number of heads on the device.
    pub(crate) n_padded: usize,
    pub(crate) size_padded: usize,
}

impl HeadLayout {
    /// # Errors
    /// When heads are larger than kernels have.
    pub(crate) fn of(config: &EncoderConfig) -> Result<Self, LoadError> {
        let size = config.head_size();
        let padded = [32, 64, 128].into_iter().find(|padded| size <= *padded);
        let size_padded = padded.ok_or_else(|| {
            LoadError::Unfit(format!(
                "the model's attention heads have {size} numbers, the cuda backend takes 128 at most"
            ))
        })?;
        let mut n_padded = config.n_heads;
        while !(n_padded * size_padded).is_multiple_of(STEP) {
            n_padded += 1;
        }
        Ok(Self {
            n: config.n_heads,
            size,
            n_padded,
            size_padded,
        })
    }

    /// Numbers of a row on the device.
    pub(crate) fn width(self) -> usize {
        self.n_padded * self.size_padded
    }

    /// The place of a number of the model's row.
    fn place(self, i: usize) -> usize {
        i / self.size * self.size_padded + i % self.size
    }
}

/// Reads tensors of one model onto one device.
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) stream: &'a Stream,
    pub(crate) format: Format,
    /// Rows of the measurements by which kernels are chosen.
    timed_rows: usize,
}

/// The places of a tensor's numbers.
struct Places<R, C> {
    /// The place of a row.
    row: R,
    /// The place of a number in its row.
    column: C,
    /// Numbers of a row on the device.
    stride: usize,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(weights: &'a Weights, kernels: &'a Kernels<'a>, timed_rows: usize) -> Self {
        Self {
            weights,
            stream: kernels.stream(),
            format: kernels.format(),
            timed_rows,
        }
    }

    /// Room for a matrix in halves, all zeros.
    fn zeros(&self, [rows, stride]: [usize; 2]) -> Result<Buffer, LoadError> {
        let n = rows * stride;
        // Kernels number with 32 bits.
        if i32::try_from(n).is_err() {
            let message =
                format!("a matrix of {rows} x {stride} is larger than the cuda backend takes");
            return Err(LoadError::Unfit(message));
        }
        let buffer = Buffer::new(self.stream.device(), n * 2)?;
        self.stream.fill(&buffer, 0)?;
        self.stream.wait()?;
        Ok(buffer)
    }

    /// Copies a matrix to the device, each row to its place there. Places of rows after one another must be after one another where no
    /// other tensor's rows are between them.
    fn copy<R: Fn(usize) -> usize, C: Fn(usize) -> usize>(
        &self,
        name: &str,
        [rows, width]: [usize; 2],
        to: &Buffer,
        places: &Places<R, C>,
    ) -> Result<(), LoadError> {
        let (mut failed, mut halves) = (Ok(()), Vec::new());
        self.weights
            .with_rows(name, [rows, width], |first, values| {
                if failed.is_ok() {
                    failed =
                        self.copy_block(name, [first, width], values, (to, places), &mut halves);
                }
            })?;
        failed
    }

    /// Copies some rows: those whose places are after one another go at once.
    fn copy_block<R: Fn(usize) -> usize, C: Fn(usize) -> usize>(
        &self,
        name: &str,
        [first, width]: [usize; 2],
        values: &[f32],
        (to, places): (&Buffer, &Places<R, C>),
        halves: &mut Vec<u16>,
    ) -> Result<(), LoadError> {
        let too_large = |x: &&f32| x.abs() > self.format.largest();
        if let Some(value) = values.iter().find(too_large) {
            return Err(LoadError::TooLarge {
                name: name.to_owned(),
                value: *value,
                format: self.format,
            });
        }
        halves.clear();
        let mut begin = (places.row)(first);
        for (i, row) in values.chunks_exact(width).enumerate() {
            let place = (places.row)(first + i);
            if place != begin + halves.len() / places.stride {
                self.stream.upload(halves, to, begin * places.stride * 2)?;
                halves.clear();
                begin = place;
            }
            let at = halves.len();
            halves.resize(at + places.stride, 0);
            for (column, x) in row.iter().enumerate() {
                halves[at + (places.column)(column)] = self.format.round(*x);
            }
        }
        self.stream.upload(halves, to, begin * places.stride * 2)?;
        Ok(())
    }

    /// The vectors of tokens, positions or segments.
    pub(crate) fn table(&self, name: &str, rows: usize, width: usize) -> Result<Buffer, LoadError> {
        let buffer = Buffer::new(self.stream.device(), rows * width * 2)?;
        let places = Places {
            row: |row| row,
            column: |column| column,
            stride: width,
        };
        self.copy(name, [rows, width], &buffer, &places)?;
        Ok(buffer)
    }

    /// Numbers in f32.
    pub(crate) fn floats(&self, name: &str, n: usize) -> Result<Buffer, LoadError> {
        self.put(&self.weights.values(name, &[n])?)
    }

    pub(crate) fn put(&self, numbers: &[f32]) -> Result<Buffer, LoadError> {
        let buffer = Buffer::new(self.stream.device(), size_of_val(numbers))?;
        self.stream.upload(numbers, &buffer, 0)?;
        Ok(buffer)
    }

    /// A layer whose rows and columns are padded at their ends.
    pub(crate) fn linear(
        &self,
        name: &str,
        [outer, inner]: [usize; 2],
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let columns = inner.next_multiple_of(STEP);
        self.padded(name, [outer, inner], columns, |column| column, products)
    }

    /// The layer behind attention, which reads rows of heads.
    pub(crate) fn behind_attention(
        &self,
        name: &str,
        width: usize,
        heads: HeadLayout,
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let place = |column| heads.place(column);
        self.padded(name, [width, width], heads.width(), place, products)
    }

    fn padded(
        &self,
        name: &str,
        [outer, inner]: [usize; 2],
        stride: usize,
        column: impl Fn(usize) -> usize,
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let rows = outer.next_multiple_of(STEP);
        let weight = self.zeros([rows, stride])?;
        let places = Places {
            row: |row| row,
            column,
            stride,
        };
        self.copy(&format!("{name}.weight"), [outer, inner], &weight, &places)?;
        let mut bias = self.weights.values(&format!("{name}.bias"), &[outer])?;
        bias.resize(rows, 0.0);
        self.layer(weight, &bias, [rows, stride], products)
    }

    fn layer(
        &self,
        weight: Buffer,
        bias: &[f32],
        shape: [usize; 2],
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let parts = (weight, self.put(bias)?);
        let layer = Linear::new(self.stream, parts, shape, products, self.timed_rows);
        Ok(layer?)
    }

    /// Query, key and value in one layer, which writes rows of heads.
    pub(crate) fn fused_qkv(
        &self,
        layer: usize,
        width: usize,
        heads: HeadLayout,
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let (part_rows, stride) = (heads.width(), width.next_multiple_of(STEP));
        let weight = self.zeros([3 * part_rows, stride])?;
        let mut bias = vec![0.0; 3 * part_rows];
        for (i, part) in ["query", "key", "value"].into_iter().enumerate() {
            let name = format!("encoder.layer.{layer}.attention.self.{part}");
            let places = Places {
                row: |row| i * part_rows + heads.place(row),
                column: |column| column,
                stride,
            };
            self.copy(&format!("{name}.weight"), [width, width], &weight, &places)?;
            let values = self.weights.values(&format!("{name}.bias"), &[width])?;
            for (row, x) in values.into_iter().enumerate() {
                bias[(places.row)(row)] = x;
            }
        }
        self.layer(weight, &bias, [3 * part_rows, stride], products)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(n: usize, size: usize) -> HeadLayout {
        let json = format!(
            r#"{{"model_type": "bert", "vocab_size": 9, "hidden_size": {}, "num_hidden_layers": 1, "num_attention_heads": {n},
                "intermediate_size": 8, "max_position_embeddings": 9}}"#,
            n * size
        );
        HeadLayout::of(&EncoderConfig::from_json(&json).unwrap()).unwrap()
    }

    #[test]
    fn heads_are_padded_to_what_kernels_have_and_their_rows_to_whole_tiles() {
        let padded = |n, size| {
            let heads = heads(n, size);
            (heads.n_padded, heads.size_padded)
        };
        assert_eq!(padded(16, 64), (16, 64));
        assert_eq!(padded(12, 32), (12, 32));
        assert_eq!(padded(12, 26), (12, 32));
        assert_eq!(padded(3, 16), (4, 32));
        assert_eq!(padded(2, 100), (2, 128));
        let heads = heads(12, 26);
        assert_eq!([0, 25, 26, 311].map(|i| heads.place(i)), [0, 25, 32, 377]);
        assert_eq!((heads.n, heads.width()), (12, 384));
    }
}
