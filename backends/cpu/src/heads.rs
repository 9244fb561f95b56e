//! The heads, which make results of token vectors: pooling, the sparse and ColBERT heads of bge-m3, or a
//! cross-encoder's head. They compute in f32, whatever the encoder's precision.

use embedgate_core::{
    Column, Head, Matrix, ModelFolder, Outputs, Pooling, SparseVector, TokenBatch,
};
use embedgate_weights::{Weights, WeightsError};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use crate::{
    attention::TokenSelection,
    linear::{Linear, Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::OneDnnError,
    vector::dot,
};

/// The heads of a model.
pub(crate) struct Heads {
    pooling: Pooling,
    /// Numbers of a row.
    width: usize,
    /// Ids without a lexical weight, ascending.
    special_token_ids: Vec<u32>,
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

/// The rows that an encoder gave of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Hidden<'a> {
    /// One row a token, or one of each sequence's first token, padded to a multiple of [`ROW_STEP`] rows.
    pub(crate) rows: &'a [f32],
    pub(crate) selection: TokenSelection,
    pub(crate) batch: &'a TokenBatch,
}

impl Heads {
    /// Loads the head of a cross-encoder, or of bge-m3's those that the weights have.
    pub(crate) fn load(
        folder: &ModelFolder,
        loader: &Loader<'_>,
        pooling: Pooling,
        special_token_ids: Vec<u32>,
    ) -> Result<Self, LoadError> {
        let width = folder.encoder.hidden_size;
        let mut heads = Self {
            pooling,
            width,
            special_token_ids,
            sparse: None,
            multi_vector: None,
            classifier: None,
        };
        if folder.is_cross_encoder {
            let [dense, score] = folder.encoder.architecture.classifier_layers();
            heads.classifier = Some(Classifier {
                dense: loader.exact(dense, width, width)?,
                score: row(loader.weights, score, width)?,
            });
            return Ok(heads);
        }
        let has = |name: &str| loader.weights.has(&format!("{name}.weight"));
        if has("sparse_linear") {
            heads.sparse = Some(row(loader.weights, "sparse_linear", width)?);
        }
        if has("colbert_linear") {
            heads.multi_vector = Some(loader.exact("colbert_linear", width, width)?);
        }
        Ok(heads)
    }

    pub(crate) fn outputs(&self) -> Outputs {
        if self.classifier.is_some() {
            return Outputs::SCORE;
        }
        Outputs::of(&[Head::Dense, Head::TokenVectors])
            .with_if(self.sparse.is_some(), Head::Sparse)
            .with_if(self.multi_vector.is_some(), Head::MultiVector)
    }

    /// Returns the rows of tokens that outputs need.
    pub(crate) fn selection(&self, outputs: Outputs) -> TokenSelection {
        match outputs.read_all_tokens(self.pooling) {
            true => TokenSelection::All,
            false => TokenSelection::First,
        }
    }

    /// The results of one head; none where the model does not have it.
    pub(crate) fn column(
        &self,
        head: Head,
        hidden: Hidden<'_>,
    ) -> Result<Option<Column>, OneDnnError> {
        Ok(match head {
            Head::Dense => Some(Column::Vectors(self.dense(hidden))),
            Head::Sparse => self.sparse(hidden).map(Column::Weights),
            Head::MultiVector => self.multi_vector(hidden)?.map(Column::Rows),
            Head::TokenVectors => {
                let rows = Matrix::of_batch(hidden.rows, self.width, hidden.batch, 0);
                Some(Column::Rows(rows))
            }
            Head::Score => self.scores(hidden)?.map(Column::Scores),
            _ => None,
        })
    }

    /// Pools the rows of each sequence.
    fn dense(&self, hidden: Hidden<'_>) -> Matrix {
        let (width, batch) = (self.width, hidden.batch);
        let mut dense = Matrix::zeros(batch.len(), width);
        for (i, range) in batch.ranges().enumerate() {
            let rows = match hidden.selection {
                TokenSelection::First => i..i + 1,
                TokenSelection::All => range,
            };
            let rows = &hidden.rows[rows.start * width..rows.end * width];
            self.pooling.pool(rows, dense.row_mut(i));
        }
        dense
    }

    /// Lexical weights: ReLU of the sparse head, the largest of each token id.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_sparse_embedding`.
    fn sparse(&self, hidden: Hidden<'_>) -> Option<Vec<SparseVector>> {
        let (weight, bias) = self.sparse.as_ref()?;
        let rows = &hidden.rows[..hidden.batch.n_tokens() * self.width];
        let weights: Vec<f32> = rows
            .par_chunks(weight.len())
            .with_min_len(64)
            .map(|row| {
                let x = dot(row, weight) + bias;
                // Not max, which would lose a NaN.
                if x < 0.0 { 0.0 } else { x }
            })
            .collect();
        let skip = &self.special_token_ids;
        Some(SparseVector::of_batch(hidden.batch, &weights, skip))
    }

    /// Token vectors of each sequence without its first token, not normalized.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_colbert_embedding`.
    fn multi_vector(&self, hidden: Hidden<'_>) -> Result<Option<Vec<Matrix>>, OneDnnError> {
        let Some(head) = &self.multi_vector else {
            return Ok(None);
        };
        let mut all = vec![0.0; hidden.rows.len()];
        head.forward(Operand::F32(hidden.rows), Target::F32(&mut all))?;
        Ok(Some(Matrix::of_batch(&all, head.outer(), hidden.batch, 1)))
    }

    /// The logit of each sequence. A cross-encoder gives nothing else, so that the rows are those of first tokens.
    fn scores(&self, first: Hidden<'_>) -> Result<Option<Vec<f32>>, OneDnnError> {
        let Some(head) = &self.classifier else {
            return Ok(None);
        };
        let mut dense = vec![0.0; first.rows.len()];
        head.dense
            .forward(Operand::F32(first.rows), Target::F32(&mut dense))?;
        let (weight, bias) = &head.score;
        dense
            .par_chunks_mut(weight.len() * ROW_STEP)
            .for_each(|rows| {
                rows.iter_mut().for_each(|x| *x = x.tanh());
            });
        let rows = dense.chunks_exact(weight.len()).take(first.batch.len());
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
