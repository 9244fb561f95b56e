//! Reads a model's weights onto a device, some rows at a time: there is no copy of them in f32, nor of the model in the host's memory.
mod copy;
pub(crate) mod head_layout;

use std::sync::Arc;

use embedgate_core::encoder::{self, Linear as Source, LinearPart, Table};
use embedgate_weights::{Weights, WeightsError};
use thiserror::Error;

use self::{copy::TensorLayout, head_layout::HeadLayout};
use crate::{
    calls::operands::Norm,
    device::{Buffer, Stream},
    error::DriverError,
    format::Format,
    kernels::Kernels,
    linear::{Linear, STEP},
    products::{self, Products},
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

/// Reads tensors of one model onto one device.
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) kernels: &'a Kernels<'a>,
    /// Rows of the measurements by which kernels are chosen.
    timed_rows: usize,
}

impl<'a> Loader<'a> {
    /// A loader of these weights onto the device of these kernels.
    pub(crate) fn new(weights: &'a Weights, kernels: &'a Kernels<'a>, timed_rows: usize) -> Self {
        Self {
            weights,
            kernels,
            timed_rows,
        }
    }

    fn stream(&self) -> &Stream {
        self.kernels.stream()
    }

    fn format(&self) -> Format {
        self.kernels.format()
    }
    /// The vectors of tokens, positions or segments.
    pub(crate) fn table(&self, table: &Table, width: usize) -> Result<Buffer, LoadError> {
        let Table { name, rows } = table;
        let buffer = Buffer::new(self.stream().device(), rows * width * 2)?;
        let layout = TensorLayout {
            row: |row| row,
            column: |column| column,
            stride: width,
        };
        self.copy(name, [*rows, width], &buffer, &layout)?;
        Ok(buffer)
    }

    /// A normalization of rows.
    pub(crate) fn norm(&self, norm: &encoder::Norm) -> Result<Norm, LoadError> {
        let values = norm.read(|name, shape| self.weights.values(name, shape))?;
        Ok(Norm {
            weight: self.put(&values.weight)?,
            bias: self.put(&values.bias)?,
            eps: norm.eps,
        })
    }

    /// Puts numbers on the device as they are.
    pub(crate) fn put(&self, numbers: &[f32]) -> Result<Buffer, LoadError> {
        let buffer = Buffer::new(self.stream().device(), size_of_val(numbers))?;
        self.stream().upload(numbers, &buffer, 0)?;
        Ok(buffer)
    }

    /// A layer whose rows and columns are padded at their ends.
    pub(crate) fn linear(
        &self,
        name: &str,
        [outer, inner]: [usize; 2],
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let layout = TensorLayout {
            row: |row| row,
            column: |column| column,
            stride: inner.next_multiple_of(STEP),
        };
        self.padded(name, [outer, inner], &layout, products)
    }

    /// The layer behind attention, which reads rows of heads.
    pub(crate) fn behind_attention(
        &self,
        name: &str,
        width: usize,
        heads: HeadLayout,
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let layout = TensorLayout {
            row: |row| row,
            column: |column| heads.place(column),
            stride: heads.width(),
        };
        self.padded(name, [width, width], &layout, products)
    }

    fn padded<R: Fn(usize) -> usize, C: Fn(usize) -> usize>(
        &self,
        name: &str,
        [outer, inner]: [usize; 2],
        layout: &TensorLayout<R, C>,
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let (rows, stride) = (outer.next_multiple_of(STEP), layout.stride);
        let weight = self.zeros([rows, stride])?;
        self.copy(&format!("{name}.weight"), [outer, inner], &weight, layout)?;
        let mut bias = self.weights.values(&format!("{name}.bias"), &[outer])?;
        bias.resize(rows, 0.0);
        self.layer(weight, &bias, [rows, stride], products)
    }

    fn layer(
        &self,
        weight: Buffer,
        bias: &[f32],
        [outer, inner]: [usize; 2],
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let weights = products::Weights {
            weight,
            bias: self.put(bias)?,
            outer,
            inner,
        };
        let layer = Linear::new(self.stream(), weights, products, self.timed_rows);
        Ok(layer?)
    }

    /// Query, key and value in one layer, which writes rows of heads.
    pub(crate) fn fused_qkv(
        &self,
        source: &Source,
        heads: HeadLayout,
        products: &Arc<Products>,
    ) -> Result<Linear, LoadError> {
        let width = source.inner;
        let (part_rows, stride) = (heads.width(), width.next_multiple_of(STEP));
        let weight = self.zeros([3 * part_rows, stride])?;
        let mut bias = vec![0.0; 3 * part_rows];
        for (i, LinearPart { name, outer, .. }) in source.parts.iter().enumerate() {
            let layout = TensorLayout {
                row: |row| i * part_rows + heads.place(row),
                column: |column| column,
                stride,
            };
            self.copy(&format!("{name}.weight"), [*outer, width], &weight, &layout)?;
            let values = self.weights.values(&format!("{name}.bias"), &[*outer])?;
            for (row, x) in values.into_iter().enumerate() {
                bias[(layout.row)(row)] = x;
            }
        }
        self.layer(weight, &bias, [3 * part_rows, stride], products)
    }
}
