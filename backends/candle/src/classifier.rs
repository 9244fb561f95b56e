//! The head of a cross-encoder: one score a sequence.

use candle_core::{DType, Result, Tensor};
use embedgate_core::{
    Matrix, Pooling, PoolingMode, TokenBatch,
    encoder::{self, Activation},
};
use embedgate_weights::WeightsError;

use crate::{linear::Linear, load::Loader, norm::Norm};

/// `score(norm(activation(dense(x))))` of one vector a sequence, without those that are none.
pub(crate) struct Classifier {
    pooling: Pooling,
    dense: Option<(Linear, Activation)>,
    norm: Option<Norm>,
    score: Linear,
}

impl Classifier {
    /// Reads the layers under the names of their description.
    pub(crate) fn load(
        source: &encoder::Classifier,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let dense = source.dense.as_ref();
        let dense = dense.map(|(dense, activation)| Ok((loader.linear(dense)?, *activation)));
        let norm = source.norm.as_ref().map(|norm| loader.norm(norm, None));
        Ok(Self {
            pooling: source.pooling,
            dense: dense.transpose()?,
            norm: norm.transpose()?,
            score: loader.score(&source.score)?,
        })
    }

    /// Returns the logit of each sequence, without a sigmoid. `hidden` has shape `(tokens of all sequences, width)`.
    pub(crate) fn scores(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Vec<f32>> {
        let mut x = self.pooled(hidden, batch)?;
        if let Some((dense, activation)) = &self.dense {
            let product = dense.product(&x)?;
            x = dense.rows.activate(product, &dense.bias, *activation)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.apply(&x)?;
        }
        let scores = self.score.forward(&x)?.flatten_all()?;
        scores.to_dtype(DType::F32)?.to_vec1()
    }

    /// One row a sequence.
    fn pooled(&self, hidden: &Tensor, batch: &TokenBatch) -> Result<Tensor> {
        let one_row: Option<fn(std::ops::Range<usize>) -> usize> = match self.pooling.only() {
            Some(PoolingMode::Cls) => Some(|range| range.start),
            Some(PoolingMode::Last) => Some(|range| range.end - 1),
            _ => None,
        };
        if let Some(one_row) = one_row {
            let rows: Vec<i64> = batch.ranges().map(|range| one_row(range) as i64).collect();
            return hidden.index_select(&Tensor::new(rows, hidden.device())?, 0);
        }
        let numbers: Vec<f32> = hidden.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        let width = hidden.dim(1)?;
        let mut pooled = Matrix::zeros(batch.len(), width);
        for (i, range) in batch.ranges().enumerate() {
            let rows = &numbers[range.start * width..range.end * width];
            self.pooling.pool(rows, pooled.row_mut(i));
        }
        let pooled = Tensor::from_vec(pooled.data, (batch.len(), width), hidden.device())?;
        pooled.to_dtype(hidden.dtype())
    }
}
