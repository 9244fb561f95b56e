//! Cuts and normalizes vectors.

use crate::{cache::CachedEmbedding, request::Embedding};

/// Copies a vector out of the cache, cut to `dimensions`; of length 1 when asked for, or when it was cut.
pub(super) fn finish(cached: &CachedEmbedding, dimensions: usize, normalize: bool) -> Embedding {
    let mut vector = cached.vector[..dimensions.min(cached.vector.len())].to_vec();
    if normalize || vector.len() < cached.vector.len() {
        normalize_to_one(&mut vector);
    }
    Embedding {
        vector,
        n_tokens: cached.n_tokens,
        n_tokens_full: cached.n_tokens_full,
    }
}

/// Gives a vector length 1; the zero vector stays as it is.
///
/// Source: PyTorch 2.15, `torch.nn.functional.normalize`: the length is at least 1e-12. Summed in f64.
#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
fn normalize_to_one(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt()
        .max(1e-12);
    for x in vector {
        *x = (f64::from(*x) / length) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(vector: &[f32]) -> CachedEmbedding {
        CachedEmbedding {
            vector: vector.into(),
            n_tokens: 3,
            n_tokens_full: 5,
        }
    }

    #[test]
    fn vectors_are_cut_and_normalized_as_asked() {
        let whole = cached(&[3.0, 4.0, 12.0]);
        assert_eq!(finish(&whole, 3, false).vector, [3.0, 4.0, 12.0]);
        assert_eq!(
            finish(&whole, 2, false).vector,
            [0.6, 0.8],
            "cut vectors are always normalized"
        );
        assert_eq!(
            finish(&whole, 3, true).vector,
            [3.0 / 13.0, 4.0 / 13.0, 12.0 / 13.0]
        );
        assert_eq!(
            (
                finish(&whole, 3, true).n_tokens,
                finish(&whole, 3, true).n_tokens_full
            ),
            (3, 5)
        );
    }

    #[test]
    fn tiny_huge_and_zero_vectors_stay_finite() {
        assert_eq!(finish(&cached(&[0.0, 0.0]), 2, true).vector, [0.0, 0.0]);
        let huge = finish(&cached(&[3e30, 4e30]), 2, true).vector;
        assert!(
            (huge[0] - 0.6).abs() < 1e-6 && (huge[1] - 0.8).abs() < 1e-6,
            "{huge:?}"
        );
    }
}
