//! A linear layer: a product with a weight, and a bias.

use candle_core::{Device, Result, Tensor};
use embedgate_weights::{Weights, WeightsError};

use crate::rows::{Place, Rows};

pub(crate) struct Linear {
    /// Shape `(outputs, inputs)`, as PyTorch stores it.
    pub(crate) weight: Tensor,
    /// Shape `(outputs,)`.
    pub(crate) bias: Tensor,
    pub(crate) rows: Rows,
}

impl Linear {
    /// Reads `{name}.weight` and `{name}.bias`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        outputs: usize,
        inputs: usize,
        place: &Place,
    ) -> std::result::Result<Self, WeightsError> {
        let weight = tensor(
            weights,
            &format!("{name}.weight"),
            &[outputs, inputs],
            place,
        )?;
        Ok(Self {
            weight,
            bias: tensor(weights, &format!("{name}.bias"), &[outputs], place)?,
            rows: place.rows,
        })
    }

    /// Returns shape `(rows, outputs)` for `x` of shape `(rows, inputs)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.rows.add_bias(self.product(x)?, &self.bias)
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
    place: &Place,
) -> std::result::Result<Tensor, WeightsError> {
    let values = weights.values(name, shape)?;
    put(values, shape, place).map_err(|e| WeightsError::Damaged {
        path: name.into(),
        problem: e.to_string(),
    })
}

/// Puts numbers, as many as the shape has, where the model is.
pub(crate) fn put(values: Vec<f32>, shape: &[usize], place: &Place) -> Result<Tensor> {
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
    // On the processor first: less is copied to the card.
    tensor.to_dtype(place.format)?.to_device(&place.device)
}
