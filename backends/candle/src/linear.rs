//! A linear layer: a product with a weight, and a bias.

use candle_core::{Result, Tensor};

use crate::rows::Rows;

/// `x W^T + b`.
pub(crate) struct Linear {
    /// Shape `(outputs, inputs)`, as PyTorch stores it.
    pub(crate) weight: Tensor,
    /// Shape `(outputs,)`.
    pub(crate) bias: Tensor,
    pub(crate) rows: Rows,
}

impl Linear {
    /// Returns shape `(rows, outputs)` for `x` of shape `(rows, inputs)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.rows.add_bias(self.product(x)?, &self.bias)
    }

    /// The product without the bias, for who adds it together with what follows.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)
    }
}
