//! One tile of queries, and the sum of the values of all keys for them: a tile of keys at a time, with a running softmax.

use std::ops::Range;

use embedgate_core::encoder::Reach;

use super::{Attention, KEY_STEP, KEYS, scratch::Scratch};
use crate::{
    linear::ROW_STEP,
    onednn::{Format, OneDnnError, Product, Right, Shape, Tile},
    vector::{Rounded, Running, Scores, accumulate, add_distances, softmax},
};

/// Both products of a tile.
#[derive(Clone, Copy)]
enum Step {
    Scores,
    Contexts,
}

/// Queries of one head, and the keys that they see.
pub(super) struct Seen {
    pub(super) head: usize,
    /// Places of the queries in their sequence.
    pub(super) queries: Range<usize>,
    /// Tokens of the sequence.
    pub(super) n: usize,
    pub(super) reach: Reach,
}

impl Seen {
    /// The keys that any of the queries sees, from a multiple of [`KEY_STEP`] on.
    fn keys(&self) -> Range<usize> {
        let last = self.queries.end.max(1) - 1;
        let first = self.reach.of(self.queries.start, self.n).start;
        first / KEY_STEP * KEY_STEP..self.reach.of(last, self.n).end
    }
}

impl Attention {
    /// Sums up the values of the keys that queries see, by powers of their scores.
    pub(super) fn tile<T: Rounded>(
        &self,
        seen: &Seen,
        scratch: &mut Scratch<T>,
    ) -> Result<(), OneDnnError> {
        let (size, rows, all_keys) = (self.shape.head_size, seen.queries.len(), seen.keys());
        let n_queries = rows.next_multiple_of(ROW_STEP);
        let running = &mut scratch.running[..rows];
        running.fill(Running::NONE);
        let [part, sum] = &mut scratch.parts;
        for first in all_keys.clone().step_by(KEYS) {
            let n = KEYS.min(all_keys.end - first);
            let n_keys = n.next_multiple_of(KEY_STEP);
            let of_keys = first * size..(first + n_keys) * size;
            let keys = &scratch.keys[of_keys.clone()];
            let values = &scratch.values[of_keys];
            let query = &scratch.queries[..n_queries * size];
            let scores = &mut scratch.scores[..n_queries * n_keys];
            let powers = &mut scratch.powers[..n_queries * n_keys];
            let product = self.product(Step::Scores, n_queries, n_keys)?;
            product.run_view(query, keys, &mut Tile::whole(scores, n_keys))?;
            if self.bias.is_some() || !seen.reach.is_all() {
                self.add_to(scores, n_keys, first..first + n, seen);
            }
            if let Some(scoring) = &self.scoring {
                let of_queries = scratch
                    .queries_by_distance
                    .chunks_exact(scratch.queries_by_distance.len() / n_queries);
                let rows = scores.chunks_exact_mut(n_keys).zip(seen.queries.clone());
                for ((row, query), of_query) in rows.zip(of_queries) {
                    let of_keys = &scratch.keys_by_distance;
                    scoring.add(&mut row[..n], (query, first), (of_query, of_keys));
                }
            }
            let corrections = &mut scratch.corrections[..rows];
            let scores = Scores {
                numbers: scores,
                stride: n_keys,
                n,
            };
            softmax(scores, powers, running, corrections);
            let product = self.product(Step::Contexts, n_queries, n_keys)?;
            let is_first = first == all_keys.start;
            let into = if is_first { &mut *sum } else { &mut *part };
            let mut into = Tile::whole(&mut into[..n_queries * size], size);
            product.run_view(powers, values, &mut into)?;
            if !is_first {
                accumulate(&mut sum[..rows * size], part, corrections, size);
            }
        }
        Ok(())
    }

    /// Adds numbers by distance to the scores of some keys, and takes those out that are not seen.
    fn add_to(&self, scores: &mut [f32], stride: usize, keys: Range<usize>, seen: &Seen) {
        let bias = self.bias.as_ref();
        let distances = bias.map_or(&[][..], |bias| bias.of_head(seen.head));
        let rows = scores.chunks_exact_mut(stride).zip(seen.queries.clone());
        for (row, query) in rows {
            let of_query = seen.reach.of(query, seen.n);
            add_distances(
                &mut row[..keys.len()],
                (query, keys.start),
                &of_query,
                distances,
            );
        }
    }

    fn product(&self, step: Step, queries: usize, keys: usize) -> Result<&Product, OneDnnError> {
        let by_tile = match step {
            Step::Scores => &self.scores,
            Step::Contexts => &self.contexts,
        };
        let slot = &by_tile[queries / ROW_STEP - 1][keys / KEY_STEP - 1];
        slot.get_or(|| {
            let size = self.shape.head_size;
            let (inner, columns, strides) = match step {
                Step::Scores => (size, keys, [1, size]),
                Step::Contexts => (keys, size, [size, 1]),
            };
            let shape = Shape {
                rows: queries,
                inner,
                columns,
                format: self.format,
                src_stride: inner,
                dst_format: Format::F32,
                dst_stride: columns,
                has_scales: false,
                has_bias: false,
                activation: None,
            };
            Product::new(self.library, shape, Right::Strided(strides))
        })
    }
}
