//! The test of attention.

use super::{
    Rejection,
    test::{LENGTHS, Test, numbers, offsets},
};
use crate::calls::operands::Attention;

impl Test<'_> {
    /// Tests attention of heads of `d` numbers, in tiles of so many queries.
    pub(super) fn attention(&self, d: usize, tile: usize) -> Result<(), Rejection> {
        let (heads, n_tokens) = (2, LENGTHS.iter().sum::<usize>());
        let (qkv, values) = self.put_halves(&numbers(1, n_tokens * 3 * heads * d))?;
        let out = self.room(n_tokens * heads * d * 2)?;
        let offsets = offsets();
        let blocks: Vec<i32> = (0..LENGTHS.len())
            .flat_map(|text| (0..LENGTHS[text].div_ceil(tile)).map(move |block| [text, block]))
            .flat_map(|pair| pair.map(|n| i32::try_from(n).unwrap_or(i32::MAX)))
            .collect();
        let (cu, places) = (self.put(&offsets)?, self.put(&blocks)?);
        // As large as scores are in a model, so that the softmax is not flat.
        let scale = 1.5;
        let attention = Attention {
            heads,
            head_size: d,
            n_blocks: blocks.len() / 2,
            scale,
        };
        let sequences = self.sequences(&cu);
        self.call()
            .attention([&qkv, &out], sequences, (&places).into(), attention)?;
        let got = self.halves(&out, n_tokens * heads * d)?;
        let at = |row: usize, part: usize, head: usize| {
            let begin = ((row * 3 + part) * heads + head) * d;
            &values[begin..begin + d]
        };
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum()
        };
        let mut expected = vec![0.0; got.len()];
        for (text, n) in LENGTHS.iter().enumerate() {
            let first = usize::try_from(offsets[text]).unwrap_or(0);
            for (row, head) in (first..first + n).flat_map(|r| (0..heads).map(move |h| (r, h))) {
                let scores = (first..first + n)
                    .map(|key| dot(at(row, 0, head), at(key, 1, head)) * f64::from(scale));
                let scores: Vec<f64> = scores.collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let out = &mut expected[(row * heads + head) * d..][..d];
                for (key, weight) in (first..first + n).zip(weights) {
                    for (sum, v) in out.iter_mut().zip(at(key, 2, head)) {
                        *sum += weight / total * f64::from(*v);
                    }
                }
            }
        }
        // Weights are rounded before they are multiplied.
        self.compare(&got, &expected, 4.0)
    }
}
