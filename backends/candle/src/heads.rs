//! The heads, which make rows of token vectors: the sparse and ColBERT heads of bge-m3, or the head of a cross-encoder.

use candle_core::{DType, Result, Tensor};
use embedgate_core::{
    Column, Head, Matrix, ModelFolder, Outputs, Pooling, SparseVector, TokenBatch,
    encoder::Linear as Source,
};
use embedgate_weights::WeightsError;

use crate::{classifier::Classifier, linear::Linear, load::Loader, splade::Splade};

/// The heads of a model.
pub(crate) struct Heads {
    pooling: Pooling,
    /// Ids without a lexical weight, ascending.
    special_token_ids: Vec<u32>,
    sparse: Option<Linear>,
    multi_vector: Option<Linear>,
    /// A model that has it gives nothing else.
    classifier: Option<Classifier>,
    splade: Option<Splade>,
}

impl Heads {
    /// Loads the head of a cross-encoder, or of bge-m3's those that the weights have.
    pub(crate) fn load(
        folder: &ModelFolder,
        loader: Loader<'_>,
        pooling: Pooling,
        special_token_ids: Vec<u32>,
    ) -> std::result::Result<Self, WeightsError> {
        let width = folder.encoder.hidden_size;
        let mut heads = Self {
            pooling,
            special_token_ids,
            sparse: None,
            multi_vector: None,
            classifier: None,
            splade: None,
        };
        if let Some(classifier) = folder.scoring_head() {
            heads.classifier = Some(Classifier::load(classifier, loader)?);
            return Ok(heads);
        }
        let encoder = &folder.encoder;
        if let (Some(pooling), Some(head)) = (folder.splade, &encoder.language_head) {
            heads.splade = Some(Splade::load(pooling, head, encoder, loader)?);
            return Ok(heads);
        }
        let has = |name: &str| loader.weights.has(&format!("{name}.weight"));
        if has("sparse_linear") {
            heads.sparse = Some(loader.linear(&Source::of("sparse_linear", [1, width], true))?);
        }
        if has("colbert_linear") {
            let source = Source::of("colbert_linear", [width, width], true);
            heads.multi_vector = Some(loader.linear(&source)?);
        }
        Ok(heads)
    }

    pub(crate) fn outputs(&self) -> Outputs {
        if self.classifier.is_some() {
            return Outputs::SCORE;
        }
        if self.splade.is_some() {
            return Outputs::of(&[Head::Sparse]);
        }
        Outputs::of(&[Head::Dense, Head::TokenVectors])
            .with_if(self.sparse.is_some(), Head::Sparse)
            .with_if(self.multi_vector.is_some(), Head::MultiVector)
    }

    /// The results of one head; `hidden` has shape `(tokens of all sequences, width)`.
    pub(crate) fn column(&self, head: Head, hidden: &Tensor, batch: &TokenBatch) -> Result<Column> {
        Ok(match head {
            Head::Dense => Column::Vectors(self.dense(hidden, batch)?),
            Head::Sparse => Column::Weights(self.sparse(hidden, batch)?),
            Head::MultiVector => Column::Rows(self.multi_vector(hidden, batch)?),
            Head::TokenVectors => Column::Rows(matrices(hidden, batch, 0)?),
            Head::Score => Column::Scores(self.scores(hidden, batch)?),
            _ => candle_core::bail!("no head of candle gives {}", head.name()),
        })
    }

    /// Pools the rows of each sequence.
    fn dense(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Matrix> {
        let (rows, width) = (numbers(hidden)?, hidden.dim(1)?);
        let mut dense = Matrix::zeros(batch.len(), self.pooling.width_of(width));
        for (i, range) in batch.ranges().enumerate() {
            let rows = &rows[range.start * width..range.end * width];
            self.pooling.pool(rows, dense.row_mut(i));
        }
        Ok(dense)
    }

    /// Lexical weights: ReLU of the sparse head, the largest of each token id.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_sparse_embedding`.
    fn sparse(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<SparseVector>> {
        if let Some(splade) = &self.splade {
            return splade.weights(hidden, batch);
        }
        let Some(head) = &self.sparse else {
            candle_core::bail!("the model has no sparse head")
        };
        let weights = numbers(&head.forward(hidden)?.relu()?)?;
        let skip = &self.special_token_ids;
        Ok(SparseVector::of_batch(batch, &weights, skip))
    }

    /// Token vectors of each sequence without its first token, shape `(tokens - 1, width)`, not normalized.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_colbert_embedding`.
    fn multi_vector(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<Matrix>> {
        let Some(head) = &self.multi_vector else {
            candle_core::bail!("the model has no ColBERT head")
        };
        matrices(&head.forward(hidden)?, batch, 1)
    }

    /// One raw score a sequence.
    fn scores(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<f32>> {
        let Some(head) = &self.classifier else {
            candle_core::bail!("the model is no cross-encoder")
        };
        head.scores(hidden, batch)
    }
}

/// The rows of each sequence in a matrix of its own, without those of its first `skipped` tokens.
fn matrices(rows: &Tensor, batch: &TokenBatch, skipped: usize) -> Result<Vec<Matrix>> {
    let (numbers, width) = (numbers(rows)?, rows.dim(1)?);
    Ok(Matrix::of_batch(&numbers, width, batch, skipped))
}

/// All numbers of a tensor, in f32.
fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}
