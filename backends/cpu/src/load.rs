//! Reads a model's weights and packs them, one tensor at a time.

use embedgate_candle::weights::{Weights, WeightsError};
use embedgate_core::{EncoderConfig, Precision, encoder::Activation};
use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};
use thiserror::Error;

use crate::{
    linear::{Form, Linear},
    onednn::{Format, Library, OneDnnError},
    precision::between,
    vector::{Norm, Rounded, round},
};

/// Why a model cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Library(#[from] OneDnnError),
}

/// What everything that is loaded needs.
pub(crate) struct Loader<'a> {
    pub(crate) library: &'static Library,
    pub(crate) weights: &'a Weights,
    pub(crate) precision: Precision,
    pub(crate) threads: usize,
}

impl Loader<'_> {
    /// A layer of the encoder, in the model's precision.
    pub(crate) fn linear(
        &self,
        name: &str,
        [outer, inner]: [usize; 2],
        activation: Option<Activation>,
        dst: Format,
    ) -> Result<Linear, LoadError> {
        let form = Form {
            precision: self.precision,
            activation,
            dst,
            threads: self.threads,
        };
        self.packed(form, name, [outer, inner])
    }

    /// A layer that keeps f32.
    pub(crate) fn exact(
        &self,
        name: &str,
        outer: usize,
        inner: usize,
    ) -> Result<Linear, LoadError> {
        let form = Form {
            precision: Precision::F32,
            activation: None,
            dst: Format::F32,
            threads: self.threads,
        };
        self.packed(form, name, [outer, inner])
    }

    fn packed(
        &self,
        form: Form,
        name: &str,
        [outer, inner]: [usize; 2],
    ) -> Result<Linear, LoadError> {
        let bias = self.numbers(&format!("{name}.bias"), &[outer])?;
        let packed =
            self.weights
                .with_values(&format!("{name}.weight"), &[outer, inner], |values| {
                    Linear::pack(self.library, form, values, &bias)
                })?;
        Ok(packed?)
    }

    /// Query, key and value in one layer. The query is already divided by the square root of the head size, and scaled so
    /// that the softmax takes powers of 2.
    pub(crate) fn fused_qkv(
        &self,
        config: &EncoderConfig,
        layer: usize,
    ) -> Result<Linear, LoadError> {
        let width = config.hidden_size;
        let mut weight = Vec::with_capacity(3 * width * width);
        let mut bias = Vec::with_capacity(3 * width);
        let query_scale = std::f32::consts::LOG2_E / (config.head_size() as f32).sqrt();
        for (part, scale) in [("query", query_scale), ("key", 1.0), ("value", 1.0)] {
            let name = format!("encoder.layer.{layer}.attention.self.{part}");
            let scaled =
                |to: &mut Vec<f32>, values: &[f32]| to.extend(values.iter().map(|x| x * scale));
            let shape = [width, width];
            self.weights
                .with_values(&format!("{name}.weight"), &shape, |values| {
                    scaled(&mut weight, values);
                })?;
            self.weights
                .with_values(&format!("{name}.bias"), &[width], |values| {
                    scaled(&mut bias, values);
                })?;
        }
        let form = Form {
            precision: self.precision,
            activation: None,
            dst: between(self.precision),
            threads: self.threads,
        };
        Ok(Linear::pack(self.library, form, &weight, &bias)?)
    }

    pub(crate) fn norm(&self, name: &str, config: &EncoderConfig) -> Result<Norm, LoadError> {
        let width = [config.hidden_size];
        Ok(Norm {
            weight: self.numbers(&format!("{name}.weight"), &width)?,
            bias: self.numbers(&format!("{name}.bias"), &width)?,
            eps: config.layer_norm_eps,
        })
    }

    pub(crate) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let numbers = self.weights.with_values(name, shape, <[f32]>::to_vec)?;
        Ok(numbers)
    }

    /// The vectors of tokens, of which there are many, in the model's precision.
    pub(crate) fn table(&self, name: &str, rows: usize, width: usize) -> Result<Table, LoadError> {
        Ok(match self.precision {
            Precision::F32 => Table::F32(self.rounded(name, rows, width)?),
            Precision::Bf16 => Table::Bf16(self.rounded(name, rows, width)?),
            Precision::Int8 => {
                let shape = [rows, width];
                self.weights
                    .with_values(name, &shape, |values| Table::bytes_of(values, width))?
            }
        })
    }

    fn rounded<T: Rounded>(
        &self,
        name: &str,
        rows: usize,
        width: usize,
    ) -> Result<Vec<T>, LoadError> {
        let mut all = vec![T::default(); rows * width];
        self.weights.with_values(name, &[rows, width], |values| {
            let blocks = all.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK));
            blocks.for_each(|(to, from)| round(from, to));
        })?;
        Ok(all)
    }
}

/// Numbers that a thread rounds at once.
const BLOCK: usize = 1 << 18;

/// Bytes of a row that have one scale: few enough that a column of large numbers does not make the others coarse.
const SCALED: usize = 64;
/// The largest byte that a number becomes.
const MOST: f32 = 127.0;

/// Vectors by id.
pub(crate) enum Table {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    /// A number is a byte times the scale of its [`SCALED`] ones; the last ones of a row may be fewer.
    Bytes {
        bytes: Vec<i8>,
        scales: Vec<f32>,
    },
}

impl Table {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is divided by its largest is within a byte, and the cast saturates"
    )]
    fn bytes_of(values: &[f32], width: usize) -> Self {
        let n_scales = width.div_ceil(SCALED);
        let mut bytes = vec![0; values.len()];
        let mut scales = vec![0.0; values.len() / width * n_scales];
        let rows = bytes
            .par_chunks_mut(width)
            .zip(scales.par_chunks_mut(n_scales))
            .zip(values.par_chunks(width));
        rows.for_each(|((bytes, scales), values)| {
            let parts = bytes.chunks_mut(SCALED).zip(scales);
            for ((bytes, scale), values) in parts.zip(values.chunks(SCALED)) {
                *scale = values.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / MOST;
                // Where all are zero, so are the bytes; what is no number makes their scale none.
                let factor = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
                if values.iter().any(|x| x.is_nan()) {
                    *scale = f32::NAN;
                }
                for (byte, x) in bytes.iter_mut().zip(values) {
                    *byte = (x * factor).round_ties_even() as i8;
                }
            }
        });
        Self::Bytes { bytes, scales }
    }

    /// Copies a row.
    pub(crate) fn read(&self, id: usize, row: &mut [f32]) {
        let range = id * row.len()..(id + 1) * row.len();
        match self {
            Self::F32(all) => row.copy_from_slice(&all[range]),
            Self::Bf16(all) => {
                for (x, half) in row.iter_mut().zip(&all[range]) {
                    *x = half.to_f32();
                }
            }
            Self::Bytes { bytes, scales } => {
                let n_scales = row.len().div_ceil(SCALED);
                let scales = &scales[id * n_scales..(id + 1) * n_scales];
                let parts = row.chunks_mut(SCALED).zip(bytes[range].chunks(SCALED));
                for ((row, bytes), scale) in parts.zip(scales) {
                    for (x, byte) in row.iter_mut().zip(bytes) {
                        *x = f32::from(*byte) * scale;
                    }
                }
            }
        }
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(all) => size_of_val(&all[..]),
            Self::Bf16(all) => size_of_val(&all[..]),
            Self::Bytes { bytes, scales } => size_of_val(&bytes[..]) + size_of_val(&scales[..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_bytes_is_near_its_numbers_part_by_part() {
        // Two rows of one whole part and a short one, whose numbers are a thousand times as large.
        let width = SCALED + 5;
        let number = |i: usize| {
            let size = if i % width < SCALED { 1.0 } else { 1000.0 };
            size * ((i * 37 % 101) as f32 / 50.0 - 1.0)
        };
        let values: Vec<f32> = (0..2 * width).map(number).collect();
        let table = Table::bytes_of(&values, width);
        assert_eq!(table.bytes(), 2 * width + 2 * 2 * size_of::<f32>());
        let mut row = vec![0.0; width];
        for (id, values) in values.chunks(width).enumerate() {
            table.read(id, &mut row);
            for (at, (read, value)) in row.iter().zip(values).enumerate() {
                let largest = if at < SCALED { 1.0 } else { 1000.0 };
                assert!((read - value).abs() <= 0.51 * largest / MOST, "{id} {at}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_stays_none() {
        let mut values = vec![0.0; 2 * SCALED];
        values[SCALED] = f32::NAN;
        let table = Table::bytes_of(&values, SCALED);
        let mut row = vec![1.0; SCALED];
        table.read(0, &mut row);
        assert!(row.iter().all(|x| *x == 0.0));
        table.read(1, &mut row);
        assert!(row.iter().all(|x| x.is_nan()));
    }
}
