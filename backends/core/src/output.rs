//! The outputs that a model gives, and the rows of its results.

use serde::Serialize;

/// The set of results that one forward pass is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Outputs {
    /// One vector a sequence.
    pub dense: bool,
    /// One weight a distinct token of a sequence.
    pub sparse: bool,
    /// One vector a token (ColBERT).
    pub multi_vector: bool,
    /// One vector a token, as the last layer gives them.
    pub token_vectors: bool,
    /// One score a sequence (cross-encoders).
    pub score: bool,
}

impl Outputs {
    /// Dense vectors alone.
    pub const DENSE: Self = Self {
        dense: true,
        sparse: false,
        multi_vector: false,
        token_vectors: false,
        score: false,
    };
    /// Everything that bge-m3 gives: dense, sparse and multi-vector.
    pub const BGE_M3: Self = Self {
        dense: true,
        sparse: true,
        multi_vector: true,
        token_vectors: false,
        score: false,
    };
    /// Scores alone: everything that a cross-encoder gives.
    pub const SCORE: Self = Self {
        dense: false,
        sparse: false,
        multi_vector: false,
        token_vectors: false,
        score: true,
    };

    /// Returns the output that a model is tried and timed with, if it gives all of these: scores where it gives them,
    /// else dense vectors.
    #[must_use]
    pub fn main(self) -> Self {
        if self.score { Self::SCORE } else { Self::DENSE }
    }

    /// Everything in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            dense: self.dense || other.dense,
            sparse: self.sparse || other.sparse,
            multi_vector: self.multi_vector || other.multi_vector,
            token_vectors: self.token_vectors || other.token_vectors,
            score: self.score || other.score,
        }
    }

    /// Returns true when `other` is a subset.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.union(other) == self
    }
}

impl std::fmt::Display for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [
            (self.dense, "dense"),
            (self.sparse, "sparse"),
            (self.multi_vector, "multi-vector"),
            (self.token_vectors, "token vectors"),
            (self.score, "score"),
        ];
        let names: Vec<_> = named
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join(", "))
    }
}

/// Rows of one width, back to back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// `rows() * width` numbers, row after row.
    pub data: Vec<f32>,
    /// Numbers in a row.
    pub width: usize,
}

impl Matrix {
    /// Makes a matrix of zeros of shape `(rows, width)`.
    #[must_use]
    pub fn zeros(rows: usize, width: usize) -> Self {
        Self {
            data: vec![0.0; rows * width],
            width,
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.width).unwrap_or(0)
    }

    /// Row `i`.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }

    /// Row `i`, to write.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.width..(i + 1) * self.width]
    }
}

/// The sparse embedding of one sequence: lexical weights by token id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseVector {
    /// Token ids, ascending, each once.
    pub indices: Vec<u32>,
    /// The weight of each, above 0.
    pub values: Vec<f32>,
}

impl SparseVector {
    /// Keeps the largest positive weight of each token id, without the ids in `skip` (sorted).
    ///
    /// `ids` and `weights` have one entry a token. NaN weights are kept, so that they are found by whoever checks.
    ///
    /// Source: FlagEmbedding 1.4.2, `inference/embedder/encoder_only/m3.py`, `_process_token_weights`.
    #[must_use]
    pub fn from_token_weights(ids: &[u32], weights: &[f32], skip: &[u32]) -> Self {
        let kept = ids
            .iter()
            .zip(weights)
            .filter(|(id, w)| (**w > 0.0 || w.is_nan()) && skip.binary_search(id).is_err());
        let mut pairs: Vec<(u32, f32)> = kept.map(|(id, w)| (*id, *w)).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
        pairs.dedup_by_key(|pair| pair.0);
        let (indices, values) = pairs.into_iter().unzip();
        Self { indices, values }
    }
}

/// The results of one batch: exactly those asked for are set, entry `i` of each belongs to sequence `i`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingBatch {
    /// Shape `(sequences, dimensions)`, pooled, not normalized.
    pub dense: Option<Matrix>,
    /// One lexical weighting a sequence.
    pub sparse: Option<Vec<SparseVector>>,
    /// A matrix `(tokens - 1, dimensions)` a sequence, without the first token, not normalized.
    pub multi_vector: Option<Vec<Matrix>>,
    /// A matrix `(tokens, dimensions)` a sequence, as the last layer gives it, not normalized.
    pub token_vectors: Option<Vec<Matrix>>,
    /// One score a sequence: the logit as the head gives it, any finite number, larger for a better match. No sigmoid.
    pub scores: Option<Vec<f32>>,
}

impl EmbeddingBatch {
    /// True where all of it are numbers, none NaN or infinite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        let matrices = [&self.multi_vector, &self.token_vectors];
        let rows = matrices.into_iter().flatten().flatten().map(|m| &m.data);
        let sparse = self.sparse.iter().flatten().map(|sparse| &sparse.values);
        let dense = self.dense.iter().map(|m| &m.data);
        let mut all = dense.chain(sparse).chain(rows).chain(&self.scores);
        all.all(|numbers| numbers.iter().all(|x| x.is_finite()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_weights_keep_the_maximum_of_each_id_without_special_tokens() {
        let ids = [0, 7, 5, 7, 9, 2];
        let weights = [9.0, 0.25, 0.5, 0.75, 0.0, 9.0];
        let sparse = SparseVector::from_token_weights(&ids, &weights, &[0, 1, 2, 3]);
        assert_eq!(
            sparse,
            SparseVector {
                indices: vec![5, 7],
                values: vec![0.5, 0.75]
            }
        );
    }

    #[test]
    fn a_nan_weight_is_not_lost() {
        let sparse = SparseVector::from_token_weights(&[5], &[f32::NAN], &[]);
        assert!(sparse.values[0].is_nan());
    }

    #[test]
    fn outputs_are_a_set() {
        assert!(Outputs::BGE_M3.contains(Outputs::DENSE));
        assert!(!Outputs::DENSE.contains(Outputs::BGE_M3));
        assert_eq!(Outputs::BGE_M3.to_string(), "dense, sparse, multi-vector");
    }
}
