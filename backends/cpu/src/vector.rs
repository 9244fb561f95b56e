//! Arithmetic on rows. The loops are plain; `pulp` compiles them for each instruction set and picks one at run time.

use embedgate_core::{
    encoder::Activation,
    math::{exp, gelu, gelu_tanh},
};
use half::bf16;
use pulp::{Arch, NullaryFnOnce};

use crate::onednn::{Number, Tile};

/// Runs a closure that is compiled for each instruction set, for the one that this processor has. The closure must be
/// `#[inline(always)]`.
///
/// It is called as the `FnMut` that it is: called as an `FnOnce`, as pulp calls closures, it would be wrapped in a function
/// that is not inlined, and so be compiled for the least of all processors.
#[inline(always)]
fn vectorized<R>(mut compute: impl FnMut() -> R) -> R {
    struct Computation<'a, F>(&'a mut F);

    impl<R, F: FnMut() -> R> NullaryFnOnce for Computation<'_, F> {
        type Output = R;

        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }

    Arch::new().dispatch(Computation(&mut compute))
}

/// A number that results are rounded to.
pub(crate) trait Rounded: Number {
    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Rounded for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Rounded for bf16 {
    /// To the nearest, of two the even one; a NaN stays one. Without branches, so that the compiler makes vectors of it.
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let bits = if x.is_nan() { 0x7fc0 } else { rounded };
        Self::from_bits((bits & 0xffff) as u16)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// The largest byte: rows are scaled so that it stands for their largest number.
const LARGEST: f32 = 127.0;

/// `to = from`, rounded.
pub(crate) fn round<T: Rounded>(from: &[f32], to: &mut [T]) {
    vectorized(
        #[inline(always)]
        || {
            for (to, x) in to.iter_mut().zip(from) {
                *to = T::from_f32(*x);
            }
        },
    );
}

/// Rounds a row to bytes, after a rotation; returns what they are multiplied with. A row of zeros, or one that holds a NaN,
/// keeps that. `rotated` is as long as the row, and is left with what was rounded.
///
/// Few of a row's numbers are large, and they would leave the others few of the steps that bytes have. A rotation spreads
/// each number over [`rotation`] others, and the product of two rotated rows is that of the rows: nothing is lost by it, and
/// nothing has to be known of the model or its inputs. The rotation is a Hadamard matrix without its scale: products are
/// [`rotation`] times too large.
///
/// Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024, section 4.
pub(crate) fn quantize<T: Rounded>(row: &[T], rotated: &mut [f32], bytes: &mut [i8]) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            for (to, x) in rotated.iter_mut().zip(row) {
                *to = x.to_f32();
            }
            rotate(rotated);
            quantize_row(rotated, bytes)
        },
    )
}

/// Numbers of a row of this width that are mixed with each other.
pub(crate) fn rotation(width: usize) -> usize {
    const LARGEST: u32 = 128_u32.trailing_zeros();
    1 << width.trailing_zeros().min(LARGEST)
}

/// Multiplies groups of a row by a Hadamard matrix. Members of a group are `width / rotation(width)` apart, so that as many
/// groups are mixed at once, each in a lane of its own.
#[inline(always)]
fn rotate(row: &mut [f32]) {
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

#[inline(always)]
fn quantize_row(row: &[f32], bytes: &mut [i8]) -> f32 {
    let largest = largest(row);
    let inverse = if largest > 0.0 {
        LARGEST / largest
    } else {
        0.0
    };
    for (byte, x) in bytes.iter_mut().zip(row) {
        *byte = to_byte(x * inverse);
    }
    largest / LARGEST
}

/// The largest magnitude; NaN where there is one.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0_u32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            // Of magnitudes, the bits of a larger one are larger; a NaN's are larger than all.
            *lane = (*lane).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let of_rest = rest.iter().map(|x| x.to_bits() & 0x7fff_ffff);
    f32::from_bits(lanes.into_iter().chain(of_rest).max().unwrap_or(0))
}

/// To the nearest whole number, within a byte.
#[inline(always)]
fn to_byte(x: f32) -> i8 {
    // Adding it leaves the nearest integer in the low bits of an f32 (1.5 x 2^23).
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-LARGEST, LARGEST);
    ((clamped + ROUND).to_bits() & 0xff) as u8 as i8
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
    match activation {
        None => finish(sums, row_scales, bias, dst, |x| x),
        Some(Activation::Gelu) => finish(sums, row_scales, bias, dst, gelu),
        Some(Activation::GeluTanh) => finish(sums, row_scales, bias, dst, gelu_tanh),
        Some(Activation::Relu) => finish(sums, row_scales, bias, dst, |x| x.max(0.0)),
    }
}

#[inline(always)]
fn finish<T: Rounded>(
    sums: &[f32],
    row_scales: &[f32],
    bias: &[f32],
    dst: &mut Tile<'_, T>,
    activation: impl Fn(f32) -> f32,
) {
    vectorized(
        #[inline(always)]
        || {
            let columns = bias.len();
            for (i, scale) in row_scales.iter().enumerate() {
                let sums = &sums[i * columns..(i + 1) * columns];
                for ((to, sum), bias) in dst.row_mut(i).iter_mut().zip(sums).zip(bias) {
                    *to = T::from_f32(activation(scale * sum + bias));
                }
            }
        },
    );
}

/// The weight and the bias of a layer normalization.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) eps: f32,
}

impl Norm {
    /// `x = LayerNorm(x + y)`, row by row; `y` may be empty, which counts as zeros.
    ///
    /// Mean and variance are taken in two passes over the row, as PyTorch's are: the difference of squares would lose
    /// digits where the mean is large.
    pub(crate) fn add(&self, x: &mut [f32], y: &[f32]) {
        vectorized(
            #[inline(always)]
            || {
                let width = self.weight.len();
                for (i, row) in x.chunks_exact_mut(width).enumerate() {
                    if !y.is_empty() {
                        let y = &y[i * width..(i + 1) * width];
                        row.iter_mut().zip(y).for_each(|(x, y)| *x += y);
                    }
                    self.normalize(row);
                }
            },
        );
    }

    #[inline(always)]
    fn normalize(&self, row: &mut [f32]) {
        let n = row.len() as f32;
        let mean = sum(row, |x| x) / n;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
        let scale = 1.0 / (variance + self.eps).sqrt();
        for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = (*x - mean) * scale * weight + bias;
        }
    }
}

/// The sum of a function of each number, in lanes, so that the compiler makes vectors of it.
#[inline(always)]
fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0_f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += of(*x);
        }
    }
    let rest: f32 = rest.iter().map(|x| of(*x)).sum();
    lanes.into_iter().sum::<f32>() + rest
}

/// `a . b`.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            const LANES: usize = 32;
            let mut lanes = [0.0_f32; LANES];
            let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest = left.remainder().iter().zip(right.remainder());
            let rest: f32 = rest.map(|(a, b)| a * b).sum();
            for (a, b) in left.zip(right) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += a * b;
                }
            }
            lanes.into_iter().sum::<f32>() + rest
        },
    )
}

/// What a softmax over several parts of a row has seen so far.
#[derive(Clone, Copy)]
pub(crate) struct Running {
    pub(crate) largest: f32,
    pub(crate) total: f32,
}

impl Running {
    pub(crate) const NONE: Self = Self {
        largest: f32::NEG_INFINITY,
        total: 0.0,
    };
}

/// One part of a softmax: `powers = e^(scores - largest so far)` for the first `n` scores, 0 for the rest of the row.
///
/// Returns what totals and results until now are multiplied with, since a part may hold a larger score than those before.
///
/// Source: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
#[inline(always)]
fn softmax_part<T: Rounded>(
    scores: &[f32],
    n: usize,
    powers: &mut [T],
    running: &mut Running,
) -> f32 {
    const LANES: usize = 32;
    let valid = &scores[..n];
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = valid.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    let all = lanes.iter().chain(rest);
    let largest = all.fold(running.largest, |a, b| a.max(*b));
    let correction = exp(running.largest - largest);
    let (n_whole, mut sums) = (n / LANES * LANES, [0.0_f32; LANES]);
    for (powers, scores) in powers[..n_whole]
        .chunks_exact_mut(LANES)
        .zip(valid.chunks_exact(LANES))
    {
        for ((power, score), sum) in powers.iter_mut().zip(scores).zip(&mut sums) {
            let e = exp(*score - largest);
            *power = T::from_f32(e);
            *sum += e;
        }
    }
    let mut total = sums.into_iter().sum::<f32>();
    for (power, score) in powers[n_whole..n].iter_mut().zip(&valid[n_whole..]) {
        let e = exp(*score - largest);
        *power = T::from_f32(e);
        total += e;
    }
    powers[n..].fill(T::from_f32(0.0));
    *running = Running {
        largest,
        total: running.total * correction + total,
    };
    correction
}

/// A part of the softmax of several rows: see [`softmax_part`]. `scores` and `powers` have rows of `stride` numbers;
/// `corrections` gets one number a row.
pub(crate) fn softmax<T: Rounded>(
    scores: &[f32],
    stride: usize,
    n: usize,
    powers: &mut [T],
    running: &mut [Running],
    corrections: &mut [f32],
) {
    vectorized(
        #[inline(always)]
        || {
            let rows = scores
                .chunks_exact(stride)
                .zip(powers.chunks_exact_mut(stride));
            for ((row, powers), (running, correction)) in
                rows.zip(running.iter_mut().zip(corrections.iter_mut()))
            {
                *correction = softmax_part(row, n, powers, running);
            }
        },
    );
}

/// `sum = sum * correction + part`, row by row.
pub(crate) fn accumulate(sum: &mut [f32], part: &[f32], corrections: &[f32], width: usize) {
    vectorized(
        #[inline(always)]
        || {
            let rows = sum.chunks_exact_mut(width).zip(part.chunks_exact(width));
            for ((sum, part), correction) in rows.zip(corrections) {
                for (sum, part) in sum.iter_mut().zip(part) {
                    *sum = *sum * correction + part;
                }
            }
        },
    );
}

/// `dst = sum / total`, row by row.
pub(crate) fn divide<T: Rounded>(sum: &[f32], running: &[Running], dst: &mut Tile<'_, T>) {
    vectorized(
        #[inline(always)]
        || {
            let width = dst.columns();
            for (i, Running { total, .. }) in running.iter().enumerate() {
                let inverse = 1.0 / total;
                let sum = &sum[i * width..(i + 1) * width];
                for (to, x) in dst.row_mut(i).iter_mut().zip(sum) {
                    *to = T::from_f32(x * inverse);
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bfloat16_is_that_of_the_half_crate() {
        let edges = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
        ];
        let many = (0..200_000_u32).map(|i| f32::from_bits(i.wrapping_mul(21_474_836)));
        for x in many.chain(edges).filter(|x| !x.is_nan()) {
            assert_eq!(<bf16 as Rounded>::from_f32(x), bf16::from_f32(x), "{x}");
        }
        assert!(<bf16 as Rounded>::from_f32(f32::NAN).is_nan());
        assert!(<bf16 as Rounded>::from_f32(f32::from_bits(0x7fff_ffff)).is_nan());
    }

    #[test]
    fn bytes_stand_for_the_rotated_numbers_of_a_row_within_half_a_step() {
        for width in [77, 96, 384, 1024] {
            let row: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
            let (mut rotated, mut bytes) = (vec![0.0; width], vec![0; width]);
            let scale = quantize(&row, &mut rotated, &mut bytes);
            let largest = rotated.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            assert_eq!(scale, largest / 127.0);
            for (x, byte) in rotated.iter().zip(&bytes) {
                let far = (x - scale * f32::from(*byte)).abs();
                assert!(far <= scale * 0.5001, "{x} {byte}");
            }
            let mut again = rotated.clone();
            rotate(&mut again);
            for (x, y) in row.iter().zip(&again) {
                let back = y / rotation(width) as f32;
                assert!((x - back).abs() < 1e-5, "{width}: {x} {back}");
            }
        }
        let (mut rotated, mut bytes) = ([0.0; 4], [1; 4]);
        assert_eq!(quantize(&[0.0_f32; 4], &mut rotated, &mut bytes), 0.0);
        assert_eq!(bytes, [0; 4]);
        assert!(quantize(&[1.0, f32::NAN, 2.0, 3.0], &mut rotated, &mut bytes).is_nan());
    }

    #[test]
    fn products_of_rotated_rows_are_those_of_the_rows() {
        for width in [96, 384, 1024, 4096] {
            let a: Vec<f32> = (0..width).map(|i| (i as f32 * 1.3).sin()).collect();
            let b: Vec<f32> = (0..width).map(|i| (i as f32 * 0.3).cos()).collect();
            let expected = dot(&a, &b);
            let turned = |x: &[f32]| {
                let mut x = x.to_vec();
                rotate(&mut x);
                x
            };
            let got = dot(&turned(&a), &turned(&b)) / rotation(width) as f32;
            assert!((got - expected).abs() < 1e-3, "{width}: {got} {expected}");
        }
        assert_eq!(
            [rotation(96), rotation(384), rotation(77), rotation(4096)],
            [32, 128, 1, 128]
        );
    }

    #[test]
    fn a_softmax_in_parts_is_that_of_the_whole() {
        let scores: Vec<f32> = (0..75)
            .map(|i| (i as f32 * 1.3).cos() * 9.0 + i as f32 * 0.1)
            .collect();
        let whole: f64 = scores.iter().map(|x| f64::from(*x).exp()).sum();
        let (mut running, mut kept, mut powers) = ([Running::NONE], Vec::new(), vec![0.0_f32; 40]);
        for (from, n) in [(0, 40), (40, 35)] {
            let mut row = scores[from..from + n].to_vec();
            row.resize(40, 1e9);
            let mut correction = [0.0];
            softmax(&row, 40, n, &mut powers, &mut running, &mut correction);
            kept.iter_mut().for_each(|x| *x *= correction[0]);
            kept.extend_from_slice(&powers[..n]);
            assert!(powers[n..].iter().all(|x| *x == 0.0));
        }
        for (power, score) in kept.iter().zip(&scores) {
            let expected = f64::from(*score).exp() / whole;
            assert!((f64::from(power / running[0].total) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn rows_are_normalized_with_what_is_added() {
        let norm = Norm {
            weight: vec![2.0; 40],
            bias: vec![1.0; 40],
            eps: 1e-5,
        };
        let mut x: Vec<f32> = (0..80).map(|i| (i * i % 17) as f32).collect();
        let y: Vec<f32> = (0..80).map(|i| (i % 7) as f32).collect();
        let sums: Vec<f64> = x.iter().zip(&y).map(|(x, y)| f64::from(x + y)).collect();
        norm.add(&mut x, &y);
        for (row, sums) in x.chunks(40).zip(sums.chunks(40)) {
            let mean = sums.iter().sum::<f64>() / 40.0;
            let variance = sums.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 40.0;
            for (x, s) in row.iter().zip(sums) {
                let expected = (s - mean) / (variance + 1e-5).sqrt() * 2.0 + 1.0;
                assert!((f64::from(*x) - expected).abs() < 1e-5);
            }
        }
    }
}
