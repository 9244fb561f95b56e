//! Models without an encoder: the mean of the tokens' vectors, or the weights of the tokens that a text has.

use std::{collections::BTreeSet, sync::Arc};

use embedgate_core::{
    Backend, BackendError, BackendInfo, Column, EmbeddingBatch, Head, Matrix, ModelFolder, Outputs,
    Pooling, Replicas, SparseVector, StaticEmbedding, StaticValues, TokenBatch, batch::Sequence,
};
use embedgate_weights::{Weights, WeightsError};

/// A vector or a weight for each token, and zeros for a text without tokens.
struct Static {
    info: BackendInfo,
    table: Arc<Vec<f32>>,
}

/// Loads the vectors or the weights of a folder, for texts of at most `longest` tokens.
///
/// # Errors
/// [`BackendError::Load`] names the file and what is wrong with it.
pub fn open_static(
    embedding: &StaticEmbedding,
    folder: &ModelFolder,
    longest: usize,
) -> Result<Box<dyn Backend>, BackendError> {
    let table = read(embedding).map_err(|e| BackendError::Load(e.to_string()))?;
    let outputs = match embedding.is_sparse() {
        true => Outputs::of(&[Head::Sparse]),
        false => Outputs::DENSE,
    };
    let options = (outputs, Pooling::MEAN);
    Ok(Box::new(Static {
        info: BackendInfo::of_encoder("static", &folder.encoder, options, longest),
        table: Arc::new(table),
    }))
}

fn read(embedding: &StaticEmbedding) -> Result<Vec<f32>, WeightsError> {
    let rows = embedding.rows;
    let weights = Weights::open(&embedding.folder, embedding.values.name())?;
    let mut table = match &embedding.values {
        StaticValues::Weights { name } => weights.values(name, &[rows])?,
        StaticValues::Vectors {
            name,
            factors,
            width,
        } => {
            let mut table = weights.values(name, &[rows, *width])?;
            if let Some(factors) = factors {
                let factors = weights.values(factors, &[rows])?;
                for (row, factor) in table.chunks_exact_mut(*width).zip(factors) {
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            table
        }
    };
    // For a text without tokens.
    table.resize(table.len() + embedding.width(), 0.0);
    Ok(table)
}

impl Static {
    fn vectors(&self, batch: &TokenBatch) -> Matrix {
        let width = self.info.dimensions;
        let mut vectors = Matrix::zeros(batch.len(), width);
        for (i, sequence) in batch.iter().enumerate() {
            let sum = vectors.row_mut(i);
            for id in sequence.ids {
                let row = &self.table[*id as usize * width..][..width];
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            let n = sequence.ids.len() as f32;
            sum.iter_mut().for_each(|x| *x /= n);
        }
        vectors
    }

    /// The weights of the tokens that a text has: each once, and none of zero.
    fn weights(&self, sequence: Sequence<'_>) -> SparseVector {
        let ids: BTreeSet<u32> = sequence.ids.iter().copied().collect();
        let weights = ids.into_iter().map(|id| (id, self.table[id as usize]));
        let (indices, values) = weights.filter(|(_, weight)| *weight != 0.0).unzip();
        SparseVector { indices, values }
    }
}

impl Backend for Static {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.info.check(batch, outputs)?;
        let mut results = EmbeddingBatch::default();
        for head in outputs.iter() {
            let column = match head {
                Head::Sparse => Column::Weights(
                    batch
                        .iter()
                        .map(|sequence| self.weights(sequence))
                        .collect(),
                ),
                _ => Column::Vectors(self.vectors(batch)),
            };
            results.columns.set(head, column);
        }
        Ok(results)
    }

    fn replicas(&self) -> Option<Replicas> {
        let (info, table) = (self.info.clone(), Arc::clone(&self.table));
        Some(Arc::new(move || {
            Ok(Box::new(Static {
                info: info.clone(),
                table: Arc::clone(&table),
            }) as Box<dyn Backend>)
        }))
    }
}
