//! Compares what a device gives with what the processor gives, of the same model, before the device is used.
//!
//! Operators of a provider can be wrong on one card and right on another. Vectors that are wrong look like any others.

use embedgate_core::{Backend, BackendError, Column, EmbeddingBatch, Head, Precision, TokenBatch};

/// Tokens of the sequences that are compared: one in a call of its own, and two that share a call, one of them with padding.
/// Operators work on blocks of 32 tokens.
const LENGTHS: [usize; 4] = [40, 33, 31, 2];
/// The length of the difference, compared with that of the result, in f32: sums in another order make 1e-6 of it.
const MOST_F32: f64 = 1e-3;
/// The limit of the same difference in f16: with sums in f16 it is 4e-3.
const MOST_F16: f64 = 1e-2;

/// Runs a few sequences on both, and fails where a result differs.
///
/// # Errors
/// The error of a backend that cannot run, or else a sentence that names the result that differs and its difference.
pub(crate) fn compare(
    device: &mut dyn Backend,
    processor: &mut dyn Backend,
) -> Result<(), BackendError> {
    let info = device.info();
    let (outputs, name) = (info.outputs, info.device.clone());
    let most = match info.precision {
        Precision::F32 => MOST_F32,
        _ => MOST_F16,
    };
    let (longest, vocabulary) = (info.max_sequence_tokens, info.vocabulary_size);
    let batch: TokenBatch = LENGTHS
        .map(|length| sequence(length.min(longest), vocabulary))
        .iter()
        .map(Vec::as_slice)
        .collect();
    let expected = values(&processor.embed(&batch, outputs)?);
    let got = values(&device.embed(&batch, outputs)?);
    for ((what, expected), (_, got)) in expected.iter().zip(&got) {
        let off = difference(expected, got);
        if off.is_nan() || off > most {
            return Err(BackendError::Load(format!(
                "{name} gives other {what} than the processor: they are off by {off:.1e} of their length, allowed is {most}. \
                 The card's driver, or ONNX Runtime's code for cards, is wrong here. A model that `embedgate convert --for gpu` \
                 wrote needs less of that code; else set device = \"cpu\""
            )));
        }
    }
    Ok(())
}

/// Ordinary token ids: which ones makes no difference.
fn sequence(length: usize, vocabulary: usize) -> Vec<u32> {
    let id = |i: usize| u32::try_from(i * 7919 % vocabulary).unwrap_or(0);
    (1..=length).map(id).collect()
}

/// All numbers of each result.
fn values(results: &EmbeddingBatch) -> Vec<(&'static str, Vec<f32>)> {
    let of = |(head, column): (Head, &Column)| {
        let values = match column {
            // One whose weights were about 0 may be missing in the other.
            Column::Weights(all) => all.iter().map(|one| one.values.iter().sum()).collect(),
            column => column.numbers().concat(),
        };
        (head.results(), values)
    };
    results.columns.iter().map(of).collect()
}

/// The length of the difference of two lists of numbers, compared with the first.
fn difference(expected: &[f32], got: &[f32]) -> f64 {
    if expected.len() != got.len() {
        return f64::INFINITY;
    }
    let square = |x: f32, y: f32| (f64::from(x) - f64::from(y)).powi(2);
    let far: f64 = expected.iter().zip(got).map(|(a, b)| square(*a, *b)).sum();
    let whole: f64 = expected.iter().map(|a| square(*a, 0.0)).sum();
    match far == 0.0 {
        true => 0.0,
        false => (far / whole).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use embedgate_core::classes::length_classes;

    use super::*;

    #[test]
    fn one_sequence_is_alone_and_two_share_a_call_with_padding() {
        let classes = length_classes(&LENGTHS);
        assert_eq!(classes, [vec![0], vec![1, 2], vec![3]]);
    }

    #[test]
    fn the_difference_is_compared_with_the_numbers_and_endless_where_shapes_differ() {
        assert!((difference(&[3.0, 4.0], &[3.0, 4.5]) - 0.1).abs() < 1e-9);
        assert_eq!(difference(&[0.0], &[0.0]).to_bits(), 0);
        assert!(difference(&[0.0], &[1.0]).is_infinite());
        assert!(difference(&[1.0], &[1.0, 1.0]).is_infinite());
        assert!(difference(&[f32::NAN], &[1.0]).is_nan());
    }
}
