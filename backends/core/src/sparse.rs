//! Lexical weights by token id.

use std::ops::Range;

use crate::TokenBatch;

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

    /// Keeps the `n` weights that are farthest from 0; a NaN counts as the farthest.
    ///
    /// Source: sentence-transformers 6.2, `util/tensor.py`, `select_max_active_dims`.
    pub fn keep_largest(&mut self, n: usize) {
        if self.values.len() <= n {
            return;
        }
        let mut places: Vec<usize> = (0..self.values.len()).collect();
        let farther =
            |a: &usize, b: &usize| self.values[*b].abs().total_cmp(&self.values[*a].abs());
        places.sort_by(farther);
        places.truncate(n);
        places.sort_unstable();
        self.indices = places.iter().map(|at| self.indices[*at]).collect();
        self.values = places.iter().map(|at| self.values[*at]).collect();
    }

    /// Makes one of the weights of all tokens of each sequence. `weights` has one entry a token of the batch.
    #[must_use]
    pub fn of_batch(batch: &TokenBatch, weights: &[f32], skip: &[u32]) -> Vec<Self> {
        let of = |range: Range<usize>| {
            Self::from_token_weights(&batch.ids()[range.clone()], &weights[range], skip)
        };
        batch.ranges().map(of).collect()
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
    fn the_weights_farthest_from_zero_stay_in_their_order() {
        let mut sparse = SparseVector {
            indices: vec![1, 3, 5, 8],
            values: vec![0.5, -2.0, 0.25, 1.0],
        };
        sparse.keep_largest(4);
        assert_eq!(sparse.indices, [1, 3, 5, 8]);
        sparse.keep_largest(2);
        assert_eq!(
            (sparse.indices, sparse.values),
            (vec![3, 8], vec![-2.0, 1.0])
        );
    }

    #[test]
    fn a_nan_weight_is_not_lost() {
        let sparse = SparseVector::from_token_weights(&[5], &[f32::NAN], &[]);
        assert!(sparse.values[0].is_nan());
    }
}
