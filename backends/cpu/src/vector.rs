//! Arithmetic on rows. The loops are plain, and compiled for each instruction set.

mod bytes;
mod distance;
mod gate;
mod norm;
mod queries;
mod rotation;
mod softmax;

pub(crate) use embedgate_core::math::dot;
use embedgate_core::math::vectorized;
use half::bf16;

pub(crate) use self::{
    bytes::{ByteProduct, add_bytes, finish_bytes, quantize},
    distance::add_distances,
    gate::gate,
    norm::Norm,
    queries::{Angles, QueryParts, prepare_queries},
    rotation::rotation,
    softmax::{Running, Scores, accumulate, divide, softmax},
};
use crate::onednn::Number;

/// A number that results are rounded to.
pub(crate) trait Rounded: Number {
    fn from_f32(x: f32) -> Self;
    /// Rounds a number that is not negative, faster than `from_f32`: of two numbers that are equally near it takes the
    /// larger.
    fn from_power(x: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Rounded for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn from_power(x: f32) -> Self {
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

    /// A NaN with all bits set would become a zero; sums that it is part of are of the f32.
    #[inline(always)]
    fn from_power(x: f32) -> Self {
        Self::from_bits((x.to_bits().wrapping_add(0x8000) >> 16) as u16)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// `to = from`, rounded.
pub(crate) fn round<T: Rounded>(from: &[f32], to: &mut [T]) {
    vectorized(
        #[inline(always)]
        |_| {
            for (to, x) in to.iter_mut().zip(from) {
                *to = T::from_f32(*x);
            }
        },
    );
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    vectorized(
        #[inline(always)]
        |_| {
            for (to, x) in to.iter_mut().zip(from) {
                *to += x;
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
        for x in (0..200_000_u32).map(|i| f32::from_bits(i.wrapping_mul(10_000))) {
            let (quick, exact) = (<bf16 as Rounded>::from_power(x), bf16::from_f32(x));
            let is_tie = x.to_bits() & 0xffff == 0x8000;
            assert!(quick == exact || is_tie, "{x}: {quick} {exact}");
        }
        assert!(<bf16 as Rounded>::from_power(f32::NAN).is_nan());
        assert!(<bf16 as Rounded>::from_f32(f32::NAN).is_nan());
        assert!(<bf16 as Rounded>::from_f32(f32::from_bits(0x7fff_ffff)).is_nan());
    }
}
