//! The results that one sequence gets from its batch.

use embedgate_core::{EmbeddingBatch, Matrix, Outputs, SparseVector};

/// The results of one sequence: what was asked for is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    /// Pooled, not normalized.
    pub dense: Option<Vec<f32>>,
    /// Lexical weights.
    pub sparse: Option<SparseVector>,
    /// A vector for each token but the first, not normalized.
    pub multi_vector: Option<Matrix>,
    /// A vector for each token, as the last layer gives it.
    pub token_vectors: Option<Matrix>,
    /// The raw score of a pair.
    pub score: Option<f32>,
}

impl Row {
    /// Takes what was asked for of sequence `i` out of a batch's results.
    pub(super) fn take(results: &mut EmbeddingBatch, i: usize, outputs: Outputs) -> Self {
        let dense = results.dense.as_ref().filter(|_| outputs.dense);
        let sparse = results.sparse.as_mut().filter(|_| outputs.sparse);
        let multi_vector = results.multi_vector.as_mut();
        let token_vectors = results.token_vectors.as_mut();
        Self {
            dense: dense.map(|rows| rows.row(i).to_vec()),
            sparse: sparse.map(|all| std::mem::take(&mut all[i])),
            multi_vector: multi_vector
                .filter(|_| outputs.multi_vector)
                .map(|all| std::mem::take(&mut all[i])),
            token_vectors: token_vectors
                .filter(|_| outputs.token_vectors)
                .map(|all| std::mem::take(&mut all[i])),
            score: results
                .scores
                .as_ref()
                .filter(|_| outputs.score)
                .map(|all| all[i]),
        }
    }

    /// Returns true when all values are finite numbers.
    pub(super) fn is_finite(&self) -> bool {
        let numbers = [
            self.dense.as_deref(),
            self.sparse.as_ref().map(|sparse| sparse.values.as_slice()),
            self.multi_vector.as_ref().map(|m| m.data.as_slice()),
            self.token_vectors.as_ref().map(|m| m.data.as_slice()),
            self.score.as_ref().map(std::slice::from_ref),
        ];
        numbers
            .into_iter()
            .flatten()
            .flatten()
            .all(|x| x.is_finite())
    }
}
