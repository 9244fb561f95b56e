//! The comparison of rows: their shapes, and their numbers within a tolerance.

use super::runs::Rows;
use crate::Outputs;

/// Checks the lengths of rows against the lengths of their sequences.
pub(super) fn shapes(
    all: &[Rows],
    sequences: &[Vec<u32>],
    outputs: Outputs,
    dimensions: usize,
) -> Result<(), String> {
    for (rows, ids) in all.iter().zip(sequences) {
        let mut rows = rows.iter();
        if outputs.dense && rows.next().is_some_and(|dense| dense.len() != dimensions) {
            return Err(format!("a dense vector has not {dimensions} numbers"));
        }
        if outputs.sparse {
            rows.next();
        }
        if outputs.multi_vector
            && rows
                .next()
                .is_some_and(|multi| multi.len() != (ids.len() - 1) * dimensions)
        {
            return Err(format!(
                "a sequence of {} tokens has not {} token vectors",
                ids.len(),
                ids.len() - 1
            ));
        }
        if outputs.token_vectors
            && rows
                .next()
                .is_some_and(|all| all.len() != ids.len() * dimensions)
        {
            return Err(format!(
                "a sequence has not {} vectors as of the last layer",
                ids.len()
            ));
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
        for (n, (row, got)) in rows.iter().zip(got).enumerate() {
            let scale = match row[..] {
                [_] => largest(expected.iter().flat_map(|any| &any[n])),
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
