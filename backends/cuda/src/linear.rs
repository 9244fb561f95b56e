//! Linear layers: weights on the device, and the kernel that multiplies by them.

use std::sync::Arc;

use crate::{
    calls::Call,
    device::{Buffer, Stream},
    error::DriverError,
    kernels::Loaded,
    products::{Products, Weights},
};

/// Widths are padded to a multiple of this: what tiles need.
pub(crate) const STEP: usize = 64;
/// A layer.
#[derive(Debug)]
pub(crate) struct Linear {
    weights: Weights,
    products: Arc<Products>,
    /// The kernel that is fastest with many rows.
    fastest: usize,
}

impl Linear {
    /// A layer of these weights. The fastest of its kernels is found with so many rows, or with 0 the largest is taken.
    pub(crate) fn new(
        stream: &Stream,
        weights: Weights,
        products: &Arc<Products>,
        timed_rows: usize,
    ) -> Result<Self, DriverError> {
        Ok(Self {
            fastest: products.fastest(stream, &weights, timed_rows)?,
            weights,
            products: Arc::clone(products),
        })
    }

    /// Numbers of a row of results.
    pub(crate) fn outer(&self) -> usize {
        self.weights.outer
    }

    /// `to = then(from weight^T + bias)`, of so many rows of `inner` and `outer` halves.
    ///
    /// # Panics
    /// When a buffer is too short.
    pub(crate) fn forward(
        &self,
        stream: &Stream,
        from: &Buffer,
        to: &Buffer,
        rows: usize,
    ) -> Result<(), DriverError> {
        let Weights {
            weight,
            bias,
            outer,
            inner,
        } = &self.weights;
        let Loaded { kernel, tile } = self.products.choose(rows, *outer, self.fastest);
        let buffers = [from, weight, bias, to];
        Call { stream, kernel }.linear(buffers, [rows, *outer, *inner], *tile)
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.weight.bytes() + self.weights.bias.bytes()
    }
}
