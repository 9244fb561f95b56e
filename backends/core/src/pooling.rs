//! Turns the token vectors of one sequence into one vector.

use serde::{Deserialize, Serialize};

/// The method that makes one vector of token vectors.
///
/// Source: sentence-transformers 6.2, `Pooling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's vector (`pooling_mode_cls_token`).
    Cls,
    /// The mean of all token vectors, special tokens included (`pooling_mode_mean_tokens`).
    Mean,
    /// The last token's vector (`pooling_mode_lasttoken`).
    Last,
    /// The largest value in each dimension (`pooling_mode_max_tokens`).
    Max,
}

impl Pooling {
    /// Pools `hidden`, of shape `(tokens, width)` without padding, into `out`, of shape `(width,)`. Not normalized.
    ///
    /// # Panics
    /// When `hidden` is empty or no multiple of `out`'s length.
    pub fn pool(self, hidden: &[f32], out: &mut [f32]) {
        let width = out.len();
        assert!(
            !hidden.is_empty() && hidden.len().is_multiple_of(width),
            "at least one whole token vector"
        );
        match self {
            Self::Cls => out.copy_from_slice(&hidden[..width]),
            Self::Last => out.copy_from_slice(&hidden[hidden.len() - width..]),
            Self::Mean => mean(hidden, out),
            Self::Max => max(hidden, out),
        }
    }
}

/// Sums in f32 row by row, as the reference does; the longest sequence has thousands of rows, not millions.
fn mean(hidden: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for row in hidden.chunks_exact(out.len()) {
        for (sum, x) in out.iter_mut().zip(row) {
            *sum += x;
        }
    }
    let n_tokens = (hidden.len() / out.len()) as f32;
    for sum in out {
        *sum /= n_tokens;
    }
}

fn max(hidden: &[f32], out: &mut [f32]) {
    out.fill(f32::NEG_INFINITY);
    for row in hidden.chunks_exact(out.len()) {
        for (largest, x) in out.iter_mut().zip(row) {
            // A NaN must reach the caller's check, so it wins over every number.
            if *x > *largest || x.is_nan() {
                *largest = *x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_pooling_gives_its_vector() {
        let hidden = [1.0, -2.0, 3.0, 4.0, 5.0, -5.0];
        let cases = [
            (Pooling::Cls, [1.0, -2.0]),
            (Pooling::Last, [5.0, -5.0]),
            (Pooling::Mean, [3.0, -1.0]),
            (Pooling::Max, [5.0, 4.0]),
        ];
        for (pooling, expected) in cases {
            let mut out = [0.0; 2];
            pooling.pool(&hidden, &mut out);
            assert_eq!(out, expected, "{pooling:?}");
        }
    }

    #[test]
    fn a_nan_survives_every_way_that_reads_it() {
        for pooling in [Pooling::Cls, Pooling::Last, Pooling::Mean, Pooling::Max] {
            let mut out = [0.0];
            pooling.pool(&[f32::NAN, f32::NAN], &mut out);
            assert!(out[0].is_nan(), "{pooling:?}");
        }
    }
}
