//! Reads a model's weights to where the model runs.

use candle_core::{Device, Result, Tensor};
use embedgate_core::{EncoderConfig, encoder::stacked::Stacked};
use embedgate_weights::{Weights, WeightsError};

use crate::{linear::Linear, rows::TensorOptions};

/// The weights of a model, and the options of the tensors that they become.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) tensor_options: &'a TensorOptions,
}

impl Loader<'_> {
    /// Reads a tensor of this shape.
    pub(crate) fn tensor(
        self,
        name: &str,
        shape: &[usize],
    ) -> std::result::Result<Tensor, WeightsError> {
        let values = self.weights.values(name, shape)?;
        self.put(values, shape).map_err(|e| damaged(name, &e))
    }

    /// Reads `{name}.weight`, of shape `(outputs, inputs)`, and `{name}.bias`.
    pub(crate) fn linear(
        self,
        name: &str,
        [outputs, inputs]: [usize; 2],
    ) -> std::result::Result<Linear, WeightsError> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.tensor(&format!("{name}.bias"), &[outputs])?,
            rows: self.tensor_options.rows,
        })
    }

    /// Reads query, key and value as one layer. The query is already divided by the square root of the head size.
    pub(crate) fn fused_qkv(
        self,
        config: &EncoderConfig,
        i: usize,
    ) -> std::result::Result<Linear, WeightsError> {
        let width = config.hidden_size;
        let query_scale = 1.0 / (config.head_size() as f32).sqrt();
        let read = |name: &str, shape: &[usize]| self.weights.values(name, shape);
        let Stacked { weight, bias } = config.stacked_qkv(i, query_scale, read)?;
        let fuse = || -> Result<Linear> {
            Ok(Linear {
                weight: self.put(weight, &[3 * width, width])?,
                bias: self.put(bias, &[3 * width])?,
                rows: self.tensor_options.rows,
            })
        };
        fuse().map_err(|e| damaged(&format!("encoder.layer.{i}"), &e))
    }

    /// Reads and stacks what a normalization needs: a bias (or zeros), the normalization's weight, its bias. Shape `(3, width)`.
    pub(crate) fn norm_rows(
        self,
        name: &str,
        width: usize,
        bias: Option<&Tensor>,
    ) -> std::result::Result<Tensor, WeightsError> {
        let gamma = self.tensor(&format!("{name}.weight"), &[width])?;
        let beta = self.tensor(&format!("{name}.bias"), &[width])?;
        let stack = || match bias {
            Some(bias) => Tensor::stack(&[bias, &gamma, &beta], 0),
            None => Tensor::stack(&[&gamma.zeros_like()?, &gamma, &beta], 0),
        };
        stack().map_err(|e| damaged(name, &e))
    }

    /// Puts numbers, as many as the shape has, where the model is.
    fn put(self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        // On the processor first: less is copied to the card.
        tensor
            .to_dtype(self.tensor_options.format)?
            .to_device(&self.tensor_options.device)
    }
}

/// The error of numbers that cannot be put where the model is.
fn damaged(name: &str, error: &candle_core::Error) -> WeightsError {
    WeightsError::Damaged {
        path: name.into(),
        problem: error.to_string(),
    }
}
