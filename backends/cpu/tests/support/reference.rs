//! The candle backend, which is the reference, and how near another's vectors are to its.

use embedgate_candle::CandleBackend;
use embedgate_core::{EmbeddingBatch, Head, ModelFolder, Pooling, TokenBatch};

pub(crate) fn candle(folder: &ModelFolder) -> CandleBackend {
    let options = embedgate_candle::Options {
        special_token_ids: vec![0, 1, 2, 3],
        ..embedgate_candle::Options::on_processor(
            folder.pooling.unwrap_or(Pooling::CLS),
            folder.max_sequence_tokens,
            2,
        )
    };
    CandleBackend::load(folder, options).unwrap()
}

/// Pseudo-random ids, in these lengths.
pub(crate) fn batch(lengths: &[usize], vocabulary: usize) -> TokenBatch {
    let mut state = 1_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % vocabulary
    };
    let sequence =
        |n: &usize| -> Vec<u32> { (0..*n).map(|_| u32::try_from(next()).unwrap()).collect() };
    let sequences: Vec<Vec<u32>> = lengths.iter().map(sequence).collect();
    sequences.iter().map(Vec::as_slice).collect()
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    assert!(cosine.is_finite(), "{cosine} of {} numbers", a.len());
    cosine
}

/// The least cosine of dense and of token vectors.
pub(crate) fn least_cosines(got: &EmbeddingBatch, expected: &EmbeddingBatch) -> (f64, f64) {
    let (a, b) = (
        got.vectors(Head::Dense).unwrap(),
        expected.vectors(Head::Dense).unwrap(),
    );
    assert_eq!((a.rows(), a.width), (b.rows(), b.width));
    let dense = (0..a.rows())
        .map(|i| cosine(a.row(i), b.row(i)))
        .fold(1.0, f64::min);
    let mut tokens: f64 = 1.0;
    let (of_got, of_expected) = (
        got.rows(Head::TokenVectors).unwrap(),
        expected.rows(Head::TokenVectors).unwrap(),
    );
    assert_eq!(of_got.len(), of_expected.len());
    for (a, b) in of_got.iter().zip(of_expected) {
        assert_eq!(a.rows(), b.rows());
        tokens = (0..a.rows())
            .map(|i| cosine(a.row(i), b.row(i)))
            .fold(tokens, f64::min);
    }
    (dense, tokens)
}
