//! The comparison of rows: their shapes, and their numbers within a tolerance.

use super::runs::Rows;
use crate::HeadForm;

/// Checks the lengths of rows against the lengths of their sequences.
pub(super) fn shapes(
    all: &[Rows],
    sequences: &[Vec<u32>],
    dimensions: usize,
) -> Result<(), String> {
    for (rows, ids) in all.iter().zip(sequences) {
        for (head, row) in rows.iter() {
            let n = ids.len();
            let expected = match head.form() {
                HeadForm::Vector => dimensions,
                HeadForm::Rows { skipped, .. } => (n - skipped) * dimensions,
                HeadForm::Score => 1,
                HeadForm::Weights => row.len(),
            };
            if row.len() != expected {
                let (head, has) = (head.name(), row.len());
                return Err(format!(
                    "{head} of a sequence of {n} tokens has {has} numbers, expected {expected}"
                ));
            }
        }
    }
    Ok(())
}

/// Checks that two runs give the same rows, within a tolerance; `how` says how the second differs from the first.
pub(super) fn same(
    expected: &[Rows],
    got: &[Rows],
    tolerance: f32,
    how: &str,
) -> Result<(), String> {
    for (i, (rows, got)) in expected.iter().zip(got).enumerate() {
        if rows.heads() != got.heads() {
            return Err(format!("sequence {i} has other outputs {how}"));
        }
        for ((head, row), (_, got)) in rows.iter().zip(got.iter()) {
            let scale = match row[..] {
                [_] => largest(expected.iter().filter_map(|any| any.get(head)).flatten()),
                _ => largest(row),
            };
            if row.len() != got.len() {
                return Err(format!("sequence {i} has rows of another length {how}"));
            }
            for (a, b) in row.iter().zip(got) {
                let far = (a - b).abs() / scale;
                if !far.is_finite() || far > tolerance {
                    return Err(format!(
                        "sequence {i} differs {how}: {b}, expected {a}, by {far:e} of its largest number"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn largest<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> f32 {
    let numbers = numbers.into_iter();
    numbers.fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()))
}
