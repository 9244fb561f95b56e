//! Weights as signed bytes, each row with a scale.
//!
//! Rows are rotated before they are rounded, by Hadamard matrices in blocks of [`rotation`] numbers: a row's few large
//! numbers would leave the others few of the steps that bytes have. The product of two rotated rows is that of the rows, so
//! what is multiplied with them is rotated too.
//!
//! Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024, section 4.

/// The largest byte of a row; its negative is the smallest, so that zero is exact.
pub(super) const STEPS: f32 = 127.0;
/// Rows are rotated in blocks of so many numbers at most: larger ones gain little and cost as much more.
const LARGEST_ROTATION: usize = 64;

/// A matrix in bytes: `values[i][j] * scales[i]` stands for a number.
#[derive(Debug, PartialEq)]
pub(super) struct Bytes {
    /// Rows back to back.
    pub(super) values: Vec<i8>,
    /// One of each row.
    pub(super) scales: Vec<f32>,
}

/// Numbers of a block that a row of this width is rotated in: a power of two that divides the width.
pub(super) fn rotation(width: usize) -> usize {
    let divides = 1 << width.trailing_zeros();
    LARGEST_ROTATION.min(divides)
}

/// The Hadamard matrix that rotates a block; symmetric, and its own inverse.
pub(super) fn hadamard(size: usize) -> Vec<f32> {
    let scale = 1.0 / (size as f32).sqrt();
    let sign = |i: usize, j: usize| {
        if (i & j).count_ones().is_multiple_of(2) {
            scale
        } else {
            -scale
        }
    };
    (0..size * size)
        .map(|at| sign(at / size, at % size))
        .collect()
}

/// Rotates the rows of a matrix, in blocks of `size`.
pub(super) fn rotate(values: &mut [f32], size: usize) {
    let scale = 1.0 / (size as f32).sqrt();
    for block in values.chunks_exact_mut(size) {
        let mut apart = 1;
        while apart < size {
            for pair in block.chunks_exact_mut(2 * apart) {
                let (low, high) = pair.split_at_mut(apart);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            apart *= 2;
        }
        block.iter_mut().for_each(|x| *x *= scale);
    }
}

/// Rounds each row of `width` numbers. None if one is NaN or infinite.
pub(super) fn round_rows(values: &[f32], width: usize) -> Option<Bytes> {
    let mut bytes = Bytes {
        values: Vec::with_capacity(values.len()),
        scales: Vec::with_capacity(values.len() / width),
    };
    for row in values.chunks_exact(width) {
        if !row.iter().all(|x| x.is_finite()) {
            return None;
        }
        let largest = row
            .iter()
            .fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let scale = largest / STEPS;
        #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
        bytes
            .values
            .extend(row.iter().map(|x| (x / scale).round_ties_even() as i8));
        bytes.scales.push(scale);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 % 101) as f32 - 50.0) / 10.0)
            .collect()
    }

    #[test]
    fn bytes_stand_for_numbers_within_half_a_step_and_zero_is_exact() {
        let mut values = numbers(3 * 40);
        values[40..80].fill(0.0);
        let bytes = round_rows(&values, 40).unwrap();
        for (i, (number, byte)) in values.iter().zip(&bytes.values).enumerate() {
            let scale = bytes.scales[i / 40];
            assert!((number - f32::from(*byte) * scale).abs() <= scale * 0.501);
        }
        assert_eq!(bytes.values[40..80], [0; 40]);
        assert_eq!(
            bytes.values[..40].iter().map(|b| b.unsigned_abs()).max(),
            Some(127)
        );
    }

    #[test]
    fn nan_and_infinity_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = numbers(8);
            values[5] = bad;
            assert_eq!(round_rows(&values, 4), None);
        }
    }

    #[test]
    fn rotating_is_multiplying_by_the_matrix_and_twice_is_nothing() {
        for size in [1, 2, 16, 64] {
            let matrix = hadamard(size);
            let before = numbers(2 * size);
            let mut rotated = before.clone();
            rotate(&mut rotated, size);
            for (block, got) in before.chunks(size).zip(rotated.chunks(size)) {
                for (row, got) in matrix.chunks(size).zip(got) {
                    let expected: f32 = row.iter().zip(block).map(|(a, b)| a * b).sum();
                    assert!((expected - got).abs() < 1e-4, "{size}: {expected} {got}");
                }
            }
            rotate(&mut rotated, size);
            for (before, after) in before.iter().zip(&rotated) {
                assert!((before - after).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_rotation_divides_the_width() {
        for (width, expected) in [(1024, 64), (384, 64), (312, 8), (32, 32), (7, 1)] {
            assert_eq!(rotation(width), expected);
        }
    }
}
