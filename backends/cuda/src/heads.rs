//! Results of rows of tokens: pooling, the sparse and ColBERT heads of bge-m3, or the head of a cross-encoder.

mod dot;
pub(crate) mod results;

use std::sync::Arc;

use embedgate_core::{
    Column, Head, Matrix, ModelFolder, Outputs, Pooling, PoolingMode, SparseVector,
};

use self::{dot::DotLayer, results::Hidden};
use crate::{
    Options,
    calls::{Call, operands::RowShape},
    device::{Buffer, Kernel, Stream},
    encoder::{Encoder, TokenSelection},
    error::DriverError,
    format::Format,
    linear::Linear,
    load::{LoadError, Loader},
    products::{Products, Then},
};

/// The heads of a model, and their kernels.
#[derive(Debug)]
pub(crate) struct Heads {
    pooling: Pooling,
    /// Ids without a lexical weight, ascending.
    special_token_ids: Vec<u32>,
    /// Numbers of a row, and of one on the device.
    width: usize,
    stride: usize,
    format: Format,
    pool: Kernel,
    sparse: Option<DotLayer>,
    multi_vector: Option<Linear>,
    classifier: Option<Classifier>,
}

/// `score(tanh(dense(x)))`.
#[derive(Debug)]
struct Classifier {
    dense: Linear,
    score: DotLayer,
}

impl Heads {
    /// Loads the head of a cross-encoder, or of bge-m3's those that the weights have.
    pub(crate) fn load(
        folder: &ModelFolder,
        encoder: &Encoder,
        loader: &Loader<'_>,
        options: Options,
    ) -> Result<Self, LoadError> {
        let (width, kernels) = (encoder.width(), loader.kernels);
        let kind = match options.pooling.only() {
            Some(PoolingMode::Cls) => 0,
            Some(PoolingMode::Last) => 1,
            Some(PoolingMode::Mean) => 2,
            Some(PoolingMode::Max) => 3,
            _ => {
                let pooling = options.pooling;
                return Err(LoadError::Unfit(format!(
                    "the cuda backend does not pool by {pooling} yet: type = \"cpu\" does"
                )));
            }
        };
        let pool = kernels.one("pool", |k| k.constant("KIND") == kind)?;
        let linear =
            |name: &str, products: &Arc<Products>| loader.linear(name, [width, width], products);
        let mut heads = Self {
            pooling: options.pooling,
            special_token_ids: options.special_token_ids,
            width,
            stride: encoder.stride(),
            format: kernels.format(),
            pool,
            sparse: None,
            multi_vector: None,
            classifier: None,
        };
        if folder.splade.is_some() {
            let message = "the cuda backend does not run SPLADE models yet: type = \"cpu\" does";
            return Err(LoadError::Unfit(message.into()));
        }
        if folder.is_cross_encoder {
            let classifier = folder.encoder.classifier.as_ref();
            let layers = classifier.and_then(embedgate_core::encoder::Classifier::bert_like);
            let [dense, score] = layers.ok_or_else(|| {
                let model_type = &folder.encoder.model_type;
                LoadError::Unfit(format!(
                    "the cuda backend does not run cross-encoders of type {model_type} yet: type = \"cpu\" does"
                ))
            })?;
            heads.classifier = Some(Classifier {
                dense: linear(dense.name(), &Products::load(kernels, Then::Tanh)?)?,
                score: DotLayer::load(loader, score.name(), width)?,
            });
            return Ok(heads);
        }
        if loader.weights.has("sparse_linear.weight") {
            heads.sparse = Some(DotLayer::load(loader, "sparse_linear", width)?);
        }
        if loader.weights.has("colbert_linear.weight") {
            heads.multi_vector = Some(linear("colbert_linear", encoder.plain())?);
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
        let of_pooling = match self.classifier {
            Some(_) => Pooling::CLS,
            None => self.pooling,
        };
        match outputs.selection(of_pooling) {
            embedgate_core::TokenSelection::First => TokenSelection::First,
            _ => TokenSelection::All,
        }
    }

    /// The results of one head; none where the model does not have it.
    pub(crate) fn column(
        &self,
        head: Head,
        hidden: Hidden<'_>,
    ) -> Result<Option<Column>, DriverError> {
        let batch = hidden.batch;
        Ok(match head {
            Head::Dense => Some(Column::Vectors(self.dense(hidden)?)),
            Head::Sparse => self.sparse(hidden)?.map(Column::Weights),
            Head::MultiVector => self.multi_vector(hidden)?.map(Column::Rows),
            Head::TokenVectors => {
                let all = self.rows(hidden.stream, hidden.rows, batch.n_tokens())?;
                let rows = Matrix::of_batch(&all.data, all.width, batch, 0);
                Some(Column::Rows(rows))
            }
            Head::Score => self.scores(hidden)?.map(Column::Scores),
            _ => None,
        })
    }

    /// Pools rows of tokens into one a sequence; rows of first tokens are those of sequences as they are.
    fn dense(&self, hidden: Hidden<'_>) -> Result<Matrix, DriverError> {
        let Hidden {
            stream,
            rows,
            results,
            sequences,
            ..
        } = hidden;
        match hidden.selection {
            TokenSelection::First => self.rows(stream, rows, hidden.batch.len()),
            TokenSelection::All => {
                let kernel = &self.pool;
                Call { stream, kernel }.pool([rows, &results.floats], sequences, self.row())?;
                let mut dense = Matrix::zeros(sequences.n, self.width);
                stream.download(&results.floats, &mut dense.data)?;
                Ok(dense)
            }
        }
    }

    fn row(&self) -> RowShape {
        RowShape {
            width: self.width,
            stride: self.stride,
        }
    }

    /// The first so many rows as they are.
    fn rows(&self, stream: &Stream, from: &Buffer, n: usize) -> Result<Matrix, DriverError> {
        let mut halves = vec![0_u16; n * self.stride];
        stream.download(from, &mut halves)?;
        let rows = halves
            .chunks_exact(self.stride)
            .flat_map(|row| &row[..self.width]);
        Ok(Matrix {
            data: rows.map(|x| self.format.number(*x)).collect(),
            width: self.width,
        })
    }

    /// Lexical weights: the largest of each token id.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_sparse_embedding`; what is not above 0 is left out
    /// there, too.
    fn sparse(&self, hidden: Hidden<'_>) -> Result<Option<Vec<SparseVector>>, DriverError> {
        let Some(head) = &self.sparse else {
            return Ok(None);
        };
        let weights = self.dot(hidden, head, hidden.rows, hidden.batch.n_tokens())?;
        let skip = &self.special_token_ids;
        Ok(Some(SparseVector::of_batch(hidden.batch, &weights, skip)))
    }

    /// Token vectors of each sequence without its first token, not normalized.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_colbert_embedding`.
    fn multi_vector(&self, hidden: Hidden<'_>) -> Result<Option<Vec<Matrix>>, DriverError> {
        let Some(head) = &self.multi_vector else {
            return Ok(None);
        };
        let Hidden {
            stream,
            rows,
            results,
            batch,
            ..
        } = hidden;
        head.forward(stream, rows, &results.rows, batch.n_tokens())?;
        let all = self.rows(stream, &results.rows, batch.n_tokens())?;
        Ok(Some(Matrix::of_batch(&all.data, all.width, batch, 1)))
    }

    /// The logit of each sequence. A cross-encoder gives nothing else, so that the rows are those of first tokens.
    fn scores(&self, first: Hidden<'_>) -> Result<Option<Vec<f32>>, DriverError> {
        let Some(head) = &self.classifier else {
            return Ok(None);
        };
        let Hidden {
            stream,
            rows,
            results,
            batch,
            ..
        } = first;
        head.dense
            .forward(stream, rows, &results.rows, batch.len())?;
        self.dot(first, &head.score, &results.rows, batch.len())
            .map(Some)
    }

    /// The number that a layer makes of each of the first `n` rows.
    fn dot(
        &self,
        hidden: Hidden<'_>,
        layer: &DotLayer,
        from: &Buffer,
        n: usize,
    ) -> Result<Vec<f32>, DriverError> {
        let buffers = [from, &hidden.results.floats];
        layer.forward(hidden.stream, buffers, n, self.row())
    }
}
