//! A mixture of experts: each token goes through some of many feed-forward layers.

use candle_core::{D, DType, Result, Tensor};
use embedgate_core::encoder::{self, Activation};
use embedgate_weights::WeightsError;

use crate::{linear::Linear, load::Loader};

/// The weights of a mixture of experts.
pub(super) struct Experts {
    source: encoder::Experts,
    router: Linear,
    /// The first and the second layer of each.
    layers: Vec<[Linear; 2]>,
}

impl Experts {
    /// Loads the experts of a layer, and what is added behind them.
    pub(super) fn load(
        source: &encoder::Experts,
        layer: &encoder::Layer,
        loader: Loader<'_>,
    ) -> std::result::Result<(Self, Tensor), WeightsError> {
        let [up, down] = [&layer.up, &layer.down];
        let values = source.read([up, down], |name, shape| loader.weights.values(name, shape))?;
        let layers = values
            .layers
            .into_iter()
            .map(|[first, second]| Ok([loader.layer(up, first)?, loader.layer(down, second)?]));
        let experts = Self {
            router: loader.linear(&source.router)?,
            layers: layers.collect::<std::result::Result<_, _>>()?,
            source: source.clone(),
        };
        Ok((experts, loader.row(&source.bias, values.bias)?))
    }

    /// Returns the sum of what each row's experts make of it.
    pub(super) fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let logits = self.router.forward(x)?.to_dtype(DType::F32)?;
        let mut of_experts = vec![(Vec::new(), Vec::new()); self.layers.len()];
        for (row, logits) in logits.to_vec2::<f32>()?.iter().enumerate() {
            for (expert, counts) in self.source.chosen(logits) {
                let (rows, weights) = &mut of_experts[expert];
                rows.push(row as i64);
                weights.push(counts);
            }
        }
        let mut sum = x.zeros_like()?;
        for ([up, down], (rows, weights)) in self.layers.iter().zip(of_experts) {
            if rows.is_empty() {
                continue;
            }
            let n = rows.len();
            let rows = Tensor::from_vec(rows, n, x.device())?;
            let wide = up.product(&x.index_select(&rows, 0)?)?;
            let made = down.product(&up.rows.activate(wide, &up.bias, activation)?)?;
            let weights = Tensor::from_vec(weights, n, x.device())?.to_dtype(x.dtype())?;
            let made = made.broadcast_mul(&weights.unsqueeze(D::Minus1)?)?;
            sum = sum.index_add(&rows, &made, 0)?;
        }
        Ok(sum)
    }
}
