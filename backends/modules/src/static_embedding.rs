//! Models without an encoder: the mean of the tokens' vectors.

use std::sync::Arc;

use embedgate_core::{
    Backend, BackendError, BackendInfo, Column, EmbeddingBatch, Head, Matrix, ModelFolder, Outputs,
    Pooling, Replicas, StaticEmbedding, TokenBatch,
};
use embedgate_weights::{Weights, WeightsError};

/// A vector for each token, and zeros for a text without tokens.
struct Static {
    info: BackendInfo,
    table: Arc<Vec<f32>>,
}

/// Loads the vectors of a folder, for texts of at most `longest` tokens.
///
/// # Errors
/// [`BackendError::Load`] names the file and what is wrong with it.
pub fn open_static(
    embedding: &StaticEmbedding,
    folder: &ModelFolder,
    longest: usize,
) -> Result<Box<dyn Backend>, BackendError> {
    let table = read(embedding).map_err(|e| BackendError::Load(e.to_string()))?;
    let options = (Outputs::DENSE, Pooling::MEAN);
    Ok(Box::new(Static {
        info: BackendInfo::of_encoder("static", &folder.encoder, options, longest),
        table: Arc::new(table),
    }))
}

fn read(embedding: &StaticEmbedding) -> Result<Vec<f32>, WeightsError> {
    let StaticEmbedding {
        folder,
        vectors,
        factors,
        rows,
        width,
        ..
    } = embedding;
    let weights = Weights::open(folder, vectors)?;
    let mut table = weights.values(vectors, &[*rows, *width])?;
    if let Some(factors) = factors {
        let factors = weights.values(factors, &[*rows])?;
        for (row, factor) in table.chunks_exact_mut(*width).zip(factors) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
    table.resize((rows + 1) * width, 0.0);
    Ok(table)
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
        let mut results = EmbeddingBatch::default();
        results.columns.set(Head::Dense, Column::Vectors(vectors));
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
