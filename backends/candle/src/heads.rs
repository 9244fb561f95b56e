//! The heads, which make rows of token vectors: the sparse and ColBERT heads of bge-m3, or the head of a cross-encoder.

use candle_core::{DType, Result, Tensor};
use embedgate_core::{Matrix, ModelFolder, Outputs, SparseVector, TokenBatch};
use embedgate_weights::WeightsError;

use crate::{classifier::Classifier, linear::Linear, load::Loader};

/// The heads of a model.
#[derive(Default)]
pub(crate) struct Heads {
    sparse: Option<Linear>,
    multi_vector: Option<Linear>,
    /// A model that has it gives nothing else.
    classifier: Option<Classifier>,
}

impl Heads {
    /// Loads the head of a cross-encoder, or of bge-m3's those that the weights have.
    pub(crate) fn load(
        folder: &ModelFolder,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        if folder.is_cross_encoder {
            return Ok(Self {
                classifier: Some(Classifier::load(&folder.encoder, loader)?),
                ..Self::default()
            });
        }
        let width = folder.encoder.hidden_size;
        let head = |name: &str, outputs| {
            let is_there = loader.weights.has(&format!("{name}.weight"));
            is_there
                .then(|| loader.linear(name, [outputs, width]))
                .transpose()
        };
        Ok(Self {
            sparse: head("sparse_linear", 1)?,
            multi_vector: head("colbert_linear", width)?,
            classifier: None,
        })
    }

    pub(crate) fn outputs(&self) -> Outputs {
        if self.classifier.is_some() {
            return Outputs::SCORE;
        }
        Outputs {
            sparse: self.sparse.is_some(),
            multi_vector: self.multi_vector.is_some(),
            token_vectors: true,
            ..Outputs::DENSE
        }
    }

    /// Lexical weights: ReLU of the sparse head, the largest of each token id.
    ///
    /// `hidden` has shape `(tokens of all sequences, width)`.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_sparse_embedding`.
    pub(crate) fn sparse(
        &self,
        hidden: &Tensor,
        batch: &TokenBatch,
        skip: &[u32],
    ) -> Result<Vec<SparseVector>> {
        let Some(head) = &self.sparse else {
            candle_core::bail!("the model has no sparse head")
        };
        let weights = head.forward(hidden)?.relu()?.flatten_all()?;
        let weights: Vec<f32> = weights.to_dtype(DType::F32)?.to_vec1()?;
        let ends = batch.offsets().windows(2);
        Ok(ends
            .map(|e| {
                SparseVector::from_token_weights(
                    &batch.ids()[e[0]..e[1]],
                    &weights[e[0]..e[1]],
                    skip,
                )
            })
            .collect())
    }

    /// Token vectors of each sequence without its first token, shape `(tokens - 1, width)`, not normalized.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_colbert_embedding`.
    pub(crate) fn multi_vector(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<Matrix>> {
        let Some(head) = &self.multi_vector else {
            candle_core::bail!("the model has no ColBERT head")
        };
        let all = head.forward(hidden)?;
        let width = all.dim(1)?;
        let data: Vec<f32> = all.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        let ends = batch.offsets().windows(2);
        Ok(ends
            .map(|e| Matrix {
                data: data[(e[0] + 1) * width..e[1] * width].to_vec(),
                width,
            })
            .collect())
    }

    /// One raw score a sequence; `hidden` has shape `(tokens of all sequences, width)`.
    pub(crate) fn scores(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<f32>> {
        let Some(head) = &self.classifier else {
            candle_core::bail!("the model is no cross-encoder")
        };
        head.scores(hidden, batch)
    }
}
