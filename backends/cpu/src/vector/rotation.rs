//! Rotations of rows, by Hadamard matrices, which spread a row's few large numbers over all of it.

use embedgate_core::math::{LANES, fold, sum};
use pulp::{Arch, Simd, WithSimd};

/// Neighbours that are mixed with each other, in wide rows.
const BLOCK: usize = 128;
/// The distance between neighbours that are mixed with each other: a vector register.
const APART: usize = 16;

/// Parts of a wide row that are mixed with each other, each of whole blocks; none for other rows.
fn parts(width: usize) -> Option<usize> {
    [16, 8]
        .into_iter()
        .find(|n| width.is_multiple_of(n * BLOCK))
}

/// Numbers of a row of this width that each number is spread over: what a rotation multiplies lengths with, squared.
pub(crate) fn rotation(width: usize) -> usize {
    const LARGEST: u32 = 128_u32.trailing_zeros();
    match parts(width) {
        Some(parts) => parts * BLOCK / APART,
        None => 1 << width.trailing_zeros().min(LARGEST),
    }
}

/// Rotates a row. Returns the largest magnitude; NaN where there is one, or a number that is infinite.
pub(super) fn rotate(row: &mut [f32]) -> f32 {
    Arch::new().dispatch(Rotate(row))
}

/// Multiplies a row by Hadamard matrices. In wide rows they mix numbers that are a vector register or more apart: first the
/// parts of the row, then blocks of neighbours in themselves, which are in memory once each.
///
/// Returns the largest magnitude; NaN where there is one, or a number that is infinite.
struct Rotate<'a>(&'a mut [f32]);

impl WithSimd for Rotate<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let row = self.0;
        let see_nothing = |_| {};
        match parts(row.len()) {
            Some(16) => mix::<S, 16>(simd, row, see_nothing),
            Some(_) => mix::<S, 8>(simd, row, see_nothing),
            None => {
                mix_groups(row);
                return largest(row) + sum(row, |x| x * 0.0);
            }
        }
        let zero = simd.splat_f32s(0.0);
        // Nothing is larger than a NaN, nor smaller: only a sum keeps it.
        let (mut largest, mut nothing) = (zero, zero);
        for block in row.chunks_exact_mut(BLOCK) {
            mix::<S, { BLOCK / APART }>(
                simd,
                block,
                #[inline(always)]
                |x| {
                    largest = simd.max_f32s(largest, simd.abs_f32s(x));
                    nothing = simd.mul_add_e_f32s(x, zero, nothing);
                },
            );
        }
        simd.reduce_max_f32s(largest) + simd.reduce_sum_f32s(nothing)
    }
}

/// The largest magnitude; a NaN counts as nothing.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [0.0_f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks
        .remainder()
        .iter()
        .fold(0.0, |a, x| larger(a, x.abs()));
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x.abs());
        }
    }
    larger(fold(lanes, larger), rest)
}

/// Mixes the `N` parts of a row with each other: each register of numbers at once, then what fills none.
#[inline(always)]
fn mix<S: Simd, const N: usize>(simd: S, row: &mut [f32], mut see: impl FnMut(S::f32s)) {
    let part = row.len() / N;
    let n_whole = part / S::F32_LANES * S::F32_LANES;
    for first in (0..n_whole).step_by(S::F32_LANES) {
        let mut group = [simd.splat_f32s(0.0); N];
        for (i, x) in group.iter_mut().enumerate() {
            let at = i * part + first;
            *x = S::as_simd_f32s(&row[at..at + S::F32_LANES]).0[0];
        }
        butterflies(
            &mut group,
            #[inline(always)]
            |a, b| (simd.add_f32s(a, b), simd.sub_f32s(a, b)),
        );
        for (i, x) in group.iter().enumerate() {
            let at = i * part + first;
            S::as_mut_simd_f32s(&mut row[at..at + S::F32_LANES]).0[0] = *x;
            see(*x);
        }
    }
    for first in n_whole..part {
        let mut group = [0.0; N];
        for (i, x) in group.iter_mut().enumerate() {
            *x = row[i * part + first];
        }
        butterflies(
            &mut group,
            #[inline(always)]
            |a: f32, b: f32| (a + b, a - b),
        );
        for (i, x) in group.iter().enumerate() {
            row[i * part + first] = *x;
            see(simd.splat_f32s(*x));
        }
    }
}

/// Multiplies by a Hadamard matrix: sums and differences of members that are 1, 2, 4 and so on apart.
#[inline(always)]
fn butterflies<T: Copy>(group: &mut [T], of: impl Fn(T, T) -> (T, T)) {
    let mut step = 1;
    while step < group.len() {
        for i in 0..group.len() {
            if i & step == 0 {
                (group[i], group[i | step]) = of(group[i], group[i | step]);
            }
        }
        step *= 2;
    }
}

/// Mixes groups whose members are `width / rotation(width)` apart, so that as many groups are mixed at once, each in a lane of
/// its own.
#[inline(always)]
fn mix_groups(row: &mut [f32]) {
    let mut run = row.len() / rotation(row.len());
    // Two steps at a time, which halves the way through memory.
    while run * 4 <= row.len() && row.len().is_multiple_of(run * 4) {
        for block in row.chunks_exact_mut(4 * run) {
            let (ab, cd) = block.split_at_mut(2 * run);
            let ((a, b), (c, d)) = (ab.split_at_mut(run), cd.split_at_mut(run));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (sum, difference) = (*a + *b, *a - *b);
                let (other_sum, other_difference) = (*c + *d, *c - *d);
                (*a, *b) = (sum + other_sum, difference + other_difference);
                (*c, *d) = (sum - other_sum, difference - other_difference);
            }
        }
        run *= 4;
    }
    if run < row.len() {
        for block in row.chunks_exact_mut(2 * run) {
            let (a, b) = block.split_at_mut(run);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::dot;

    #[test]
    fn products_of_rotated_rows_are_those_of_the_rows() {
        for width in [88, 96, 192, 384, 1024, 1536, 4096] {
            let a: Vec<f32> = (0..width).map(|i| (i as f32 * 1.3).sin()).collect();
            let b: Vec<f32> = (0..width).map(|i| (i as f32 * 0.3).cos()).collect();
            let expected = dot(&a, &b);
            let turned = |x: &[f32]| {
                let mut rotated = x.to_vec();
                Arch::new().dispatch(Rotate(&mut rotated));
                rotated
            };
            let got = dot(&turned(&a), &turned(&b)) / rotation(width) as f32;
            assert!((got - expected).abs() < 1e-3, "{width}: {got} {expected}");
        }
        assert_eq!([96, 384, 77, 4096, 88].map(rotation), [32, 128, 1, 128, 8]);
    }
}
