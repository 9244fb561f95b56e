//! The heads, which make results of token vectors: pooling, the sparse and ColBERT heads of bge-m3, or a
//! cross-encoder's head. They compute in f32, whatever the encoder's precision.

use embedgate_core::{
    Column, Head, Matrix, ModelFolder, Outputs, Pooling, SparseVector, TokenBatch, TokenSelection,
    encoder::Linear as Source,
};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSlice,
};

use crate::{
    classifier::{Classifier, one_output},
    linear::{Linear, Operand, Target},
    load::{LoadError, Loader},
    onednn::OneDnnError,
    splade::Splade,
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
    splade: Option<Splade>,
}

/// The rows that an encoder gave of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Hidden<'a> {
    /// One row of each selected token, and some rows that mean nothing.
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
            let source = Source::of("sparse_linear", [1, width], true);
            let values = source.read(|name, shape| loader.weights.values(name, shape))?;
            heads.sparse = Some(one_output(values));
        }
        if has("colbert_linear") {
            let source = Source::of("colbert_linear", [width, width], true);
            heads.multi_vector = Some(loader.exact(&source)?);
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

    /// Returns the rows of tokens that outputs need.
    pub(crate) fn selection(&self, outputs: Outputs) -> TokenSelection {
        let classifier = self.classifier.as_ref();
        outputs.selection(classifier.map_or(self.pooling, |head| head.pooling))
    }

    /// The results of one head; none where the model does not have it.
    pub(crate) fn column(
        &self,
        head: Head,
        hidden: Hidden<'_>,
    ) -> Result<Option<Column>, OneDnnError> {
        Ok(match head {
            Head::Dense => Some(Column::Vectors(self.dense(hidden))),
            Head::Sparse => match &self.splade {
                Some(splade) => Some(Column::Weights(splade.weights(hidden)?)),
                None => self.sparse(hidden).map(Column::Weights),
            },
            Head::MultiVector => self.multi_vector(hidden)?.map(Column::Rows),
            Head::TokenVectors => {
                let rows = Matrix::of_batch(hidden.rows, self.width, hidden.batch, 0);
                Some(Column::Rows(rows))
            }
            Head::Score => match &self.classifier {
                Some(classifier) => Some(Column::Scores(classifier.scores(hidden, self.width)?)),
                None => None,
            },
            _ => None,
        })
    }

    /// Pools the rows of each sequence.
    fn dense(&self, hidden: Hidden<'_>) -> Matrix {
        let (width, batch) = (self.width, hidden.batch);
        let mut dense = Matrix::zeros(batch.len(), self.pooling.width_of(width));
        for (i, range) in batch.ranges().enumerate() {
            let rows = match hidden.selection {
                TokenSelection::First | TokenSelection::Last => i..i + 1,
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

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let of_tokens = self.multi_vector.as_ref().map_or(0, Linear::bytes);
        let of_pairs = self.classifier.as_ref().map_or(0, Classifier::bytes);
        let of_vocabulary = self.splade.as_ref().map_or(0, Splade::bytes);
        of_tokens + of_pairs + of_vocabulary
    }
}
