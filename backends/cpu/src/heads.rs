//! The heads, which make results of token vectors: pooling, the sparse and ColBERT heads of bge-m3, or a
//! cross-encoder's head. They compute in f32, whatever the encoder's precision.

use embedgate_core::{Matrix, ModelFolder, Outputs, SparseVector, TokenBatch};
use embedgate_weights::{Weights, WeightsError};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use crate::{
    linear::{Linear, Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::OneDnnError,
    vector::dot,
};

/// The heads of a model.
#[derive(Default)]
pub(crate) struct Heads {
    /// Weight and bias of one number a token.
    sparse: Option<(Vec<f32>, f32)>,
    multi_vector: Option<Linear>,
    classifier: Option<Classifier>,
}

/// `score(tanh(dense(x)))`.
struct Classifier {
    dense: Linear,
    score: (Vec<f32>, f32),
}

impl Heads {
    /// Loads the head of a cross-encoder, or of bge-m3's those that the weights have.
    pub(crate) fn load(folder: &ModelFolder, loader: &Loader<'_>) -> Result<Self, LoadError> {
        let width = folder.encoder.hidden_size;
        if folder.is_cross_encoder {
            let [dense, score] = folder.encoder.architecture.classifier_layers();
            return Ok(Self {
                classifier: Some(Classifier {
                    dense: loader.exact(dense, width, width)?,
                    score: row(loader.weights, score, width)?,
                }),
                ..Self::default()
            });
        }
        let has = |name: &str| loader.weights.has(&format!("{name}.weight"));
        let sparse = has("sparse_linear").then(|| row(loader.weights, "sparse_linear", width));
        let multi_vector =
            has("colbert_linear").then(|| loader.exact("colbert_linear", width, width));
        Ok(Self {
            sparse: sparse.transpose()?,
            multi_vector: multi_vector.transpose()?,
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

    /// Lexical weights: ReLU of the sparse head, the largest of each token id. `hidden` has rows of all tokens.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_sparse_embedding`.
    pub(crate) fn sparse(
        &self,
        hidden: &[f32],
        batch: &TokenBatch,
        skip: &[u32],
    ) -> Option<Vec<SparseVector>> {
        let (weight, bias) = self.sparse.as_ref()?;
        let rows = hidden.par_chunks(weight.len());
        let weights: Vec<f32> = rows
            .with_min_len(64)
            .map(|row| {
                let x = dot(row, weight) + bias;
                // Not max, which would lose a NaN.
                if x < 0.0 { 0.0 } else { x }
            })
            .collect();
        let ends = batch.offsets().windows(2);
        let of = |e: &[usize]| {
            let (ids, weights) = (&batch.ids()[e[0]..e[1]], &weights[e[0]..e[1]]);
            SparseVector::from_token_weights(ids, weights, skip)
        };
        Some(ends.map(of).collect())
    }

    /// Token vectors of each sequence without its first token, not normalized. `hidden` has rows of all tokens, padded.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_colbert_embedding`.
    pub(crate) fn multi_vector(
        &self,
        hidden: &[f32],
        batch: &TokenBatch,
    ) -> Result<Option<Vec<Matrix>>, OneDnnError> {
        let Some(head) = &self.multi_vector else {
            return Ok(None);
        };
        let width = head.outer();
        let mut all = vec![0.0; hidden.len()];
        head.forward(Operand::F32(hidden), Target::F32(&mut all))?;
        let ends = batch.offsets().windows(2);
        let of = |e: &[usize]| Matrix {
            data: all[(e[0] + 1) * width..e[1] * width].to_vec(),
            width,
        };
        Ok(Some(ends.map(of).collect()))
    }

    /// The logit of each sequence; `first` has the rows of first tokens, as many as `n`, padded.
    pub(crate) fn scores(&self, first: &[f32], n: usize) -> Result<Option<Vec<f32>>, OneDnnError> {
        let Some(head) = &self.classifier else {
            return Ok(None);
        };
        let mut dense = vec![0.0; first.len()];
        head.dense
            .forward(Operand::F32(first), Target::F32(&mut dense))?;
        let (weight, bias) = &head.score;
        dense
            .par_chunks_mut(weight.len() * ROW_STEP)
            .for_each(|rows| {
                rows.iter_mut().for_each(|x| *x = x.tanh());
            });
        let rows = dense.chunks_exact(weight.len()).take(n);
        Ok(Some(rows.map(|row| dot(row, weight) + bias).collect()))
    }

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let linears = [
            self.multi_vector.as_ref(),
            self.classifier.as_ref().map(|classifier| &classifier.dense),
        ];
        linears.into_iter().flatten().map(Linear::bytes).sum()
    }
}

/// A linear layer with one result.
fn row(weights: &Weights, name: &str, width: usize) -> Result<(Vec<f32>, f32), WeightsError> {
    let weight = weights.values(&format!("{name}.weight"), &[1, width])?;
    let bias = weights.values(&format!("{name}.bias"), &[1])?;
    Ok((weight, bias[0]))
}
