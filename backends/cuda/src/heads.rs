//! Results of rows of tokens: pooling, the sparse and ColBERT heads of bge-m3, or the head of a cross-encoder.

mod dot;
pub(crate) mod results;

use std::sync::Arc;

use embedgate_core::{Matrix, ModelFolder, Outputs, Pooling, SparseVector, TokenBatch};

use self::{dot::DotLayer, results::Hidden};
use crate::{
    calls::{
        Call,
        operands::{RowShape, Sequences},
    },
    device::{Buffer, Kernel, Stream},
    encoder::Encoder,
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
        pooling: Pooling,
        encoder: &Encoder,
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let (width, kernels) = (encoder.width(), loader.kernels);
        let kind = match pooling {
            Pooling::Cls => 0,
            Pooling::Last => 1,
            Pooling::Mean => 2,
            Pooling::Max => 3,
        };
        let pool = kernels.one("pool", |k| k.constant("KIND") == kind)?;
        let linear =
            |name: &str, products: &Arc<Products>| loader.linear(name, [width, width], products);
        let mut heads = Self {
            pooling,
            width,
            stride: encoder.stride(),
            format: kernels.format(),
            pool,
            sparse: None,
            multi_vector: None,
            classifier: None,
        };
        if folder.is_cross_encoder {
            let [dense, score] = folder.encoder.architecture.classifier_layers();
            heads.classifier = Some(Classifier {
                dense: linear(dense, &Products::load(kernels, Then::Tanh)?)?,
                score: DotLayer::load(loader, score, width)?,
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
        Outputs {
            sparse: self.sparse.is_some(),
            multi_vector: self.multi_vector.is_some(),
            token_vectors: true,
            ..Outputs::DENSE
        }
    }

    /// True if outputs need rows of all tokens, false if those of first tokens do.
    pub(crate) fn reads_all(&self, outputs: Outputs) -> bool {
        outputs.sparse
            || outputs.multi_vector
            || outputs.token_vectors
            || (outputs.dense && self.pooling != Pooling::Cls)
    }

    /// Pools rows of tokens into one a sequence.
    pub(crate) fn pool(
        &self,
        hidden: Hidden<'_>,
        sequences: Sequences<'_>,
    ) -> Result<Matrix, DriverError> {
        let Hidden {
            stream,
            rows,
            results,
        } = hidden;
        let kernel = &self.pool;
        Call { stream, kernel }.pool([rows, &results.floats], sequences, self.row())?;
        let mut dense = Matrix::zeros(sequences.n, self.width);
        stream.download(&results.floats, &mut dense.data)?;
        Ok(dense)
    }

    fn row(&self) -> RowShape {
        RowShape {
            width: self.width,
            stride: self.stride,
        }
    }

    /// The first so many rows as they are.
    pub(crate) fn rows(
        &self,
        stream: &Stream,
        from: &Buffer,
        n: usize,
    ) -> Result<Matrix, DriverError> {
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
    pub(crate) fn sparse(
        &self,
        hidden: Hidden<'_>,
        batch: &TokenBatch,
        skip: &[u32],
    ) -> Result<Option<Vec<SparseVector>>, DriverError> {
        let Some(head) = &self.sparse else {
            return Ok(None);
        };
        let weights = self.dot(hidden, head, hidden.rows, batch.n_tokens())?;
        let ends = batch.offsets().windows(2);
        let of = |e: &[usize]| {
            let (ids, weights) = (&batch.ids()[e[0]..e[1]], &weights[e[0]..e[1]]);
            SparseVector::from_token_weights(ids, weights, skip)
        };
        Ok(Some(ends.map(of).collect()))
    }

    /// Token vectors of each sequence without its first token, not normalized.
    ///
    /// Source: FlagEmbedding 1.4.2, `finetune/embedder/encoder_only/m3/modeling.py`, `_colbert_embedding`.
    pub(crate) fn multi_vector(
        &self,
        hidden: Hidden<'_>,
        batch: &TokenBatch,
    ) -> Result<Option<Vec<Matrix>>, DriverError> {
        let Some(head) = &self.multi_vector else {
            return Ok(None);
        };
        let Hidden {
            stream,
            rows,
            results,
        } = hidden;
        head.forward(stream, rows, &results.rows, batch.n_tokens())?;
        let all = self.rows(stream, &results.rows, batch.n_tokens())?;
        let of = |e: &[usize]| part(&all, e[0] + 1..e[1]);
        Ok(Some(batch.offsets().windows(2).map(of).collect()))
    }

    /// The logit of each of `n` sequences; `first` has rows of first tokens.
    pub(crate) fn scores(
        &self,
        first: Hidden<'_>,
        n: usize,
    ) -> Result<Option<Vec<f32>>, DriverError> {
        let Some(head) = &self.classifier else {
            return Ok(None);
        };
        let Hidden {
            stream,
            rows,
            results,
        } = first;
        head.dense.forward(stream, rows, &results.rows, n)?;
        self.dot(first, &head.score, &results.rows, n).map(Some)
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

/// Some rows of a matrix.
pub(crate) fn part(all: &Matrix, rows: std::ops::Range<usize>) -> Matrix {
    Matrix {
        data: all.data[rows.start * all.width..rows.end * all.width].to_vec(),
        width: all.width,
    }
}
