//! The head of a cross-encoder: one score a sequence, from its first token's vector.

use candle_core::{DType, Result, Tensor};
use embedgate_core::{EncoderConfig, TokenBatch};
use embedgate_weights::WeightsError;

use crate::{linear::Linear, load::Loader};

/// Two linear layers with a tanh between.
///
/// Source: transformers 5.23, `modeling_bert.py`, `BertPooler` and `BertForSequenceClassification`;
/// `modeling_xlm_roberta.py`, `XLMRobertaClassificationHead`.
pub(crate) struct Classifier {
    dense: Linear,
    score: Linear,
}

impl Classifier {
    /// Reads both layers under the names that the architecture gives them.
    pub(crate) fn load(
        config: &EncoderConfig,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let width = config.hidden_size;
        let [dense, score] = config.architecture.classifier_layers();
        Ok(Self {
            dense: loader.linear(dense, [width, width])?,
            score: loader.linear(score, [1, width])?,
        })
    }

    /// Returns the logit of each sequence, without a sigmoid.
    ///
    /// `hidden` has shape `(tokens of all sequences, width)`; of each sequence only the first row is read.
    pub(crate) fn scores(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<f32>> {
        let first: Vec<i64> = batch.offsets()[..batch.len()]
            .iter()
            .map(|at| *at as i64)
            .collect();
        let first = Tensor::new(first, hidden.device())?;
        let dense = self.dense.forward(&hidden.index_select(&first, 0)?)?;
        let scores = self.score.forward(&dense.tanh()?)?.flatten_all()?;
        scores.to_dtype(DType::F32)?.to_vec1()
    }
}
