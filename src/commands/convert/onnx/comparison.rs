//! Compares the outputs of the written model with those of another backend.

use anyhow::bail;
use embedgate_core::{Column, EmbeddingBatch, Precision};

use crate::model::engine::REFERENCE;

/// The largest difference allowed in f32, relative to the largest number of a vector.
const TOLERANCE: f32 = 1e-4;
/// The least cosine allowed in int8, whose numbers are rounded: all-MiniLM-L6-v2 has 0.998, random weights 0.988.
const LEAST_COSINE: f32 = 0.95;
/// The least cosine allowed in f16.
const LEAST_COSINE_F16: f32 = 0.9999;

/// Fails unless all vectors agree as well as they do in this precision.
pub(super) fn compare(
    expected: &[Vec<f32>],
    got: &[Vec<f32>],
    precision: Precision,
) -> anyhow::Result<()> {
    let reference = REFERENCE.1;
    let widths = |rows: &[Vec<f32>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
    if widths(expected) != widths(got) {
        bail!("the ONNX model has other outputs than {reference}: nothing was written");
    }
    let pairs = || expected.iter().zip(got);
    if precision == Precision::F32 {
        let difference = worst(pairs().map(|(a, b)| difference(a, b)), f32::max);
        if difference.is_nan() || difference > TOLERANCE {
            bail!(
                "the ONNX model differs from {reference} by {difference:e}, allowed is {TOLERANCE:e}: nothing was written"
            );
        }
        tracing::info!(difference, "both agree within {difference:.1e}");
    } else {
        let least = match precision {
            Precision::F16 => LEAST_COSINE_F16,
            _ => LEAST_COSINE,
        };
        let cosine = worst(pairs().map(|(a, b)| cosine(a, b)), f32::min);
        if cosine.is_nan() || cosine < least {
            bail!(
                "vectors of the ONNX model have cosines down to {cosine} with those of {reference}, allowed is {least}: \
                 nothing was written"
            );
        }
        tracing::info!(cosine, "both agree, with cosines of {cosine:.5} and more");
    }
    Ok(())
}

/// Vectors of every output. All sparse ones are one row, written out, since a weight about zero may be there or not; so
/// are all scores, in int8 less their mean: they tell texts apart by their differences.
pub(super) fn rows(batch: &EmbeddingBatch, n_ids: usize, precision: Precision) -> Vec<Vec<f32>> {
    let rows = |column: &Column| match column {
        Column::Vectors(matrix) => {
            let rows = (0..matrix.rows()).map(|i| matrix.row(i).to_vec());
            rows.collect()
        }
        Column::Weights(vectors) => {
            let mut row = vec![0.0; n_ids * vectors.len()];
            for (vector, row) in vectors.iter().zip(row.chunks_exact_mut(n_ids)) {
                for (id, weight) in vector.indices.iter().zip(&vector.values) {
                    row[*id as usize] = *weight;
                }
            }
            vec![row]
        }
        Column::Rows(matrices) => matrices.iter().map(|one| one.data.clone()).collect(),
        Column::Scores(scores) => {
            let mean = match precision {
                Precision::F32 => 0.0,
                _ => scores.iter().sum::<f32>() / scores.len() as f32,
            };
            vec![scores.iter().map(|score| score - mean).collect::<Vec<_>>()]
        }
    };
    let columns = batch.columns.iter();
    columns.flat_map(|(_, column)| rows(column)).collect()
}

/// The worst of some numbers; NaN, if one is.
fn worst(numbers: impl Iterator<Item = f32>, worse: fn(f32, f32) -> f32) -> f32 {
    let either = |a: f32, b: f32| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            worse(a, b)
        }
    };
    numbers.reduce(either).unwrap_or(f32::NAN)
}

/// The cosine of two vectors; 1 if both are empty or zeros.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 {
        return if dot(a, a) == dot(b, b) { 1.0 } else { 0.0 };
    }
    dot(a, b) / lengths
}

/// The largest difference of a number, relative to the largest of both vectors.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let amounts = a.iter().chain(b).map(|x| x.abs());
    let largest = amounts.fold(f32::MIN_POSITIVE, f32::max);
    let far = a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest);
    worst(far.chain([0.0]), f32::max)
}
