//! Rows of bytes, and what a product of bytes becomes.

use embedgate_core::{
    encoder::Activation,
    math::{Fused, LANES, ROUND, fold, gelu, gelu_tanh, multiply_add, sum, vectorized},
};
use pulp::{Arch, Simd, WithSimd};

use super::Rounded;
use crate::onednn::Tile;

/// The largest byte: rows are scaled so that it stands for their largest number.
const LARGEST: f32 = 127.0;

/// Rounds a row to bytes, after a rotation; returns what they are multiplied with. A row of zeros, or one that holds a NaN,
/// keeps that. `rotated` is as long as the row, and is left with what was rounded.
///
/// Few of a row's numbers are large, and they would leave the others few of the steps that bytes have. A rotation spreads
/// each number over [`rotation`] others, and the product of two rotated rows is that of the rows: nothing is lost by it, and
/// nothing has to be known of the model or its inputs. The rotation is without its scale: products are [`rotation`] times
/// too large.
///
/// Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024, section 4.
pub(crate) fn quantize<T: Rounded>(row: &[T], rotated: &mut [f32], bytes: &mut [i8]) -> f32 {
    vectorized(
        #[inline(always)]
        |_| {
            for (to, x) in rotated.iter_mut().zip(row) {
                *to = x.to_f32();
            }
        },
    );
    let largest = Arch::new().dispatch(Rotate(rotated));
    vectorized(
        #[inline(always)]
        |fused| {
            let inverse = if largest > 0.0 {
                LARGEST / largest
            } else {
                0.0
            };
            for (byte, x) in bytes.iter_mut().zip(&*rotated) {
                // The nearest whole number is in the low bits. It is a byte, for no number is larger than the largest.
                let shifted = multiply_add(*x, inverse, ROUND, fused);
                *byte = (shifted.to_bits() & 0xff) as u8 as i8;
            }
            largest / LARGEST
        },
    )
}

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

/// Finishes a product of bytes: `dst = activation(row scale * sums + bias)`.
///
/// `sums` has shape `(rows, columns)` of `dst`; they are scaled by column already.
pub(crate) fn finish_bytes<T: Rounded>(
    sums: &[f32],
    row_scales: &[f32],
    bias: &[f32],
    activation: Option<Activation>,
    dst: &mut Tile<'_, T>,
) {
    // Each of them is compiled into a loop of its own.
    match activation {
        None => finish(sums, row_scales, bias, dst, |_, x, _| T::from_f32(x)),
        Some(Activation::Gelu) => finish(sums, row_scales, bias, dst, |_, x, fused| {
            T::from_f32(gelu(x, fused))
        }),
        Some(Activation::GeluTanh) => finish(sums, row_scales, bias, dst, |_, x, fused| {
            T::from_f32(gelu_tanh(x, fused))
        }),
        Some(Activation::Relu) => finish(sums, row_scales, bias, dst, |_, x, _| {
            T::from_f32(x.max(0.0))
        }),
    }
}

/// Adds a product of bytes: `dst += row scale * sums + bias`.
pub(crate) fn add_bytes(sums: &[f32], row_scales: &[f32], bias: &[f32], dst: &mut Tile<'_, f32>) {
    finish(sums, row_scales, bias, dst, |held, x, _| held + x);
}

#[inline(always)]
fn finish<T: Rounded>(
    sums: &[f32],
    row_scales: &[f32],
    bias: &[f32],
    dst: &mut Tile<'_, T>,
    becomes: impl Fn(T, f32, Fused) -> T,
) {
    vectorized(
        #[inline(always)]
        |fused| {
            let columns = bias.len();
            for (i, scale) in row_scales.iter().enumerate() {
                let sums = &sums[i * columns..(i + 1) * columns];
                for ((to, sum), bias) in dst.row_mut(i).iter_mut().zip(sums).zip(bias) {
                    let x = multiply_add(*scale, *sum, *bias, fused);
                    *to = becomes(*to, x, fused);
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::dot;

    #[test]
    fn bytes_stand_for_the_rotated_numbers_of_a_row_within_half_a_step() {
        for width in [77, 88, 96, 384, 1024] {
            let row: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
            let (mut rotated, mut bytes) = (vec![0.0; width], vec![0; width]);
            let scale = quantize(&row, &mut rotated, &mut bytes);
            let largest = rotated.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            assert_eq!(scale, largest / 127.0);
            for (x, byte) in rotated.iter().zip(&bytes) {
                let far = (x - scale * f32::from(*byte)).abs();
                assert!(far <= scale * 0.5001, "{x} {byte}");
            }
        }
        let (mut rotated, mut bytes) = ([0.0; 4], [1; 4]);
        assert_eq!(quantize(&[0.0_f32; 4], &mut rotated, &mut bytes), 0.0);
        assert_eq!(bytes, [0; 4]);
        assert!(quantize(&[1.0, f32::NAN, 2.0, 3.0], &mut rotated, &mut bytes).is_nan());
    }

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
