//! The head of a SPLADE model: a weight for each token of the vocabulary.

use candle_core::{DType, Result, Tensor};
use embedgate_core::{
    SparseVector, TokenBatch,
    encoder::{Activation, EncoderConfig, LanguageHead},
    splade::SpladePooling,
};
use embedgate_weights::WeightsError;

use crate::{linear::Linear, load::Loader, norm::Norm};

/// Rows of logits that are held at once.
const ROWS_AT_ONCE: usize = 64;

/// The head of a masked language model, and the pooling of its logits.
pub(crate) struct Splade {
    pooling: SpladePooling,
    dense: Linear,
    activation: Activation,
    norm: Norm,
    decoder: Linear,
}

impl Splade {
    /// Reads the layers under the names of their description.
    pub(crate) fn load(
        pooling: SpladePooling,
        head: &LanguageHead,
        config: &EncoderConfig,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let (dense, activation) = &head.dense;
        Ok(Self {
            pooling,
            dense: loader.linear(dense)?,
            activation: *activation,
            norm: loader.norm(&head.norm, None)?,
            decoder: loader.decoder(head, config)?,
        })
    }

    /// The weights of each sequence; `hidden` has shape `(tokens of all sequences, width)`.
    pub(crate) fn weights(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<SparseVector>> {
        let made = self.dense.product(hidden)?;
        let rows = self.dense.rows;
        let made = rows.activate(made, &self.dense.bias, self.activation)?;
        let made = self.norm.apply(&made)?;
        let mut pooled = vec![0.0; self.decoder.bias.dim(0)?];
        let mut all = Vec::with_capacity(batch.len());
        for range in batch.ranges() {
            pooled.fill(0.0);
            for first in range.clone().step_by(ROWS_AT_ONCE) {
                let n = ROWS_AT_ONCE.min(range.end - first);
                let logits = self.decoder.forward(&made.narrow(0, first, n)?)?;
                let logits: Vec<f32> = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
                self.pooling.add(&mut pooled, &logits);
            }
            all.push(self.pooling.finish(&pooled));
        }
        Ok(all)
    }
}
