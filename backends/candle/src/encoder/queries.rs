//! The normalizations of queries and keys, each head by itself.

use candle_core::{Result, Tensor};
use embedgate_core::encoder::{Attention, Layer};
use embedgate_weights::WeightsError;

use crate::{load::Loader, norm::Norm};

/// The normalizations of queries and keys; of none in most models.
pub(super) struct HeadNorms {
    /// Each with the columns of queries, keys and values that it is for.
    norms: Vec<(std::ops::Range<usize>, Norm)>,
}

impl HeadNorms {
    /// Loads those that the layer has.
    pub(super) fn load(
        layer: &Layer,
        shape: &Attention,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let mut norms = Vec::new();
        let (queries, keys) = (shape.query_width(), shape.key_width());
        let read = |name: &str, wanted: &[usize]| loader.weights.values(name, wanted);
        if let Some(norm) = &layer.query_norm
            && let Some(values) = layer.read_query_norm(shape.scale, read)?
        {
            norms.push((0..queries, loader.norm_of(norm, values, None)?));
        }
        if let Some(norm) = &layer.key_norm {
            norms.push((queries..queries + keys, loader.norm(norm, None)?));
        }
        Ok(Self { norms })
    }

    /// Normalizes the columns of `qkv`, of shape `(tokens, width)`.
    pub(super) fn apply(&self, mut qkv: Tensor) -> Result<Tensor> {
        for (columns, norm) in &self.norms {
            qkv = norm.rows.norm_columns(qkv, columns.clone(), norm)?;
        }
        Ok(qkv)
    }
}
