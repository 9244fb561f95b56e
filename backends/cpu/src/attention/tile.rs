//! One tile of queries, and the sum of the values of all keys for them: a tile of keys at a time, with a running softmax.

use super::{Attention, KEY_STEP, KEYS, scratch::Scratch};
use crate::{
    linear::ROW_STEP,
    onednn::{Format, OneDnnError, Product, Right, Shape, Tile},
    vector::{Rounded, Running, Scores, accumulate, softmax},
};

/// Both products of a tile.
#[derive(Clone, Copy)]
enum Step {
    Scores,
    Contexts,
}

impl Attention {
    /// Sums up the values of `n` keys for so many queries, by powers of their scores.
    pub(super) fn tile<T: Rounded>(
        &self,
        rows: usize,
        n: usize,
        scratch: &mut Scratch<T>,
    ) -> Result<(), OneDnnError> {
        let (size, n_queries) = (self.head_size, rows.next_multiple_of(ROW_STEP));
        let running = &mut scratch.running[..rows];
        running.fill(Running::NONE);
        let [part, sum] = &mut scratch.parts;
        for first in (0..n).step_by(KEYS) {
            let n = KEYS.min(n - first);
            let n_keys = n.next_multiple_of(KEY_STEP);
            let of_keys = first * size..(first + n_keys) * size;
            let keys = &scratch.keys[of_keys.clone()];
            let values = &scratch.values[of_keys];
            let query = &scratch.queries[..n_queries * size];
            let scores = &mut scratch.scores[..n_queries * n_keys];
            let powers = &mut scratch.powers[..n_queries * n_keys];
            let product = self.product(Step::Scores, n_queries, n_keys)?;
            product.run_view(query, keys, &mut Tile::whole(scores, n_keys))?;
            let corrections = &mut scratch.corrections[..rows];
            let seen = Scores {
                numbers: scores,
                stride: n_keys,
                n,
            };
            softmax(seen, powers, running, corrections);
            let product = self.product(Step::Contexts, n_queries, n_keys)?;
            let into = if first == 0 { &mut *sum } else { &mut *part };
            let mut into = Tile::whole(&mut into[..n_queries * size], size);
            product.run_view(powers, values, &mut into)?;
            if first > 0 {
                accumulate(&mut sum[..rows * size], part, corrections, size);
            }
        }
        Ok(())
    }

    fn product(&self, step: Step, queries: usize, keys: usize) -> Result<&Product, OneDnnError> {
        let by_tile = match step {
            Step::Scores => &self.scores,
            Step::Contexts => &self.contexts,
        };
        let slot = &by_tile[queries / ROW_STEP - 1][keys / KEY_STEP - 1];
        slot.get_or(|| {
            let size = self.head_size;
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
