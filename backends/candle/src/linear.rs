//! A linear layer: a product with a weight, and a bias.

use candle_core::{Device, Result, Tensor};
use embedgate_weights::{Weights, WeightsError};

use crate::ops::AddBias;

pub(crate) struct Linear {
    /// Shape `(outputs, inputs)`, as PyTorch stores it.
    pub(crate) weight: Tensor,
    /// Shape `(outputs,)`.
    pub(crate) bias: Tensor,
}

impl Linear {
    /// Reads `{name}.weight` and `{name}.bias`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> std::result::Result<Self, WeightsError> {
        Ok(Self {
            weight: tensor(weights, &format!("{name}.weight"), &[outputs, inputs])?,
            bias: tensor(weights, &format!("{name}.bias"), &[outputs])?,
        })
    }

    /// Returns shape `(rows, outputs)` for `x` of shape `(rows, inputs)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.product(x)?;
        product.inplace_op2(&self.bias, &AddBias)?;
        Ok(product)
    }

    /// The product without the bias, for who adds it together with what follows.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)
    }
}

/// Reads a tensor of this shape.
pub(crate) fn tensor(
    weights: &Weights,
    name: &str,
    shape: &[usize],
) -> std::result::Result<Tensor, WeightsError> {
    let values = weights.values(name, shape)?;
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu);
    Ok(tensor.expect("as many numbers were read as the shape has"))
}
