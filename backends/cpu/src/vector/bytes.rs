//! Rows of bytes, and what a product of bytes becomes.

use embedgate_core::{
    encoder::Activation,
    math::{Fused, ROUND, gelu, gelu_tanh, multiply_add, silu, tanh, vectorized},
};

use super::{Rounded, rotation::rotate};
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
/// [`rotation`]: super::rotation::rotation
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
    let largest = rotate(rotated);
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

/// A product of bytes as the library leaves it, not finished.
#[derive(Clone, Copy)]
pub(crate) struct ByteProduct<'a> {
    /// Shape `(rows, columns)`, scaled by column already.
    pub(crate) sums: &'a [f32],
    /// Scales of rows.
    pub(crate) row_scales: &'a [f32],
    /// Bias of columns.
    pub(crate) bias: &'a [f32],
}

/// Finishes a product of bytes: `dst = activation(row scale * sums + bias)`.
pub(crate) fn finish_bytes<T: Rounded>(
    product: ByteProduct<'_>,
    activation: Option<Activation>,
    dst: &mut Tile<'_, T>,
) {
    // Each of them is compiled into a loop of its own.
    match activation {
        None => finish(product, dst, |_, x, _| T::from_f32(x)),
        Some(Activation::Gelu) => finish(product, dst, |_, x, fused| T::from_f32(gelu(x, fused))),
        Some(Activation::GeluTanh) => {
            finish(product, dst, |_, x, fused| T::from_f32(gelu_tanh(x, fused)))
        }
        Some(Activation::Relu) => finish(product, dst, |_, x, _| T::from_f32(x.max(0.0))),
        Some(Activation::Silu) => finish(product, dst, |_, x, fused| T::from_f32(silu(x, fused))),
        Some(Activation::Tanh) => finish(product, dst, |_, x, fused| T::from_f32(tanh(x, fused))),
    }
}

/// Adds a product of bytes: `dst += row scale * sums + bias`.
pub(crate) fn add_bytes(product: ByteProduct<'_>, dst: &mut Tile<'_, f32>) {
    finish(product, dst, |held, x, _| held + x);
}

#[inline(always)]
fn finish<T: Rounded>(
    product: ByteProduct<'_>,
    dst: &mut Tile<'_, T>,
    becomes: impl Fn(T, f32, Fused) -> T,
) {
    let ByteProduct {
        sums,
        row_scales,
        bias,
    } = product;
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
}
