//! Loops of arithmetic for the processor at hand, and functions of one number made for them: no branches, no calls, so that
//! the compiler makes vectors of them.

use pulp::{Arch, Simd, WithSimd};

/// True when a product and a sum are one instruction, which [`vectorized`] knows. Functions that take it are inlined
/// where it is a constant.
pub type Fused = bool;

/// Runs a closure that is compiled for each instruction set, for the one that this processor has. It must be marked
/// `#[inline(always)]`, and so must all that it calls in a loop.
///
/// It is called as the `FnMut` that it is: called as an `FnOnce`, as pulp calls closures, it would be wrapped in a function
/// that is not inlined, and so be compiled for the least of all processors.
#[inline(always)]
pub fn vectorized<R>(mut compute: impl FnMut(Fused) -> R) -> R {
    struct Computation<'a, F>(&'a mut F);

    impl<R, F: FnMut(Fused) -> R> WithSimd for Computation<'_, F> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            // Every instruction set that pulp knows has it.
            (self.0)(!S::IS_SCALAR)
        }
    }

    Arch::new().dispatch(Computation(&mut compute))
}

/// `a b + c`.
#[inline(always)]
#[must_use]
pub fn multiply_add(a: f32, b: f32, c: f32, fused: Fused) -> f32 {
    if fused { a.mul_add(b, c) } else { a * b + c }
}

/// A polynomial by its coefficients, of the highest power first.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: &[f32; N], x: f32, fused: Fused) -> f32 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = multiply_add(sum, x, *c, fused);
    }
    sum
}

/// `x / 2 (1 + erf(x / sqrt 2))`.
#[inline(always)]
#[must_use]
pub fn gelu(x: f32, fused: Fused) -> f32 {
    let half = 0.5 * x;
    multiply_add(
        half,
        erf(x * std::f32::consts::FRAC_1_SQRT_2, fused),
        half,
        fused,
    )
}

/// The tanh approximation of GELU.
///
/// Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
#[inline(always)]
#[must_use]
pub fn gelu_tanh(x: f32, fused: Fused) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x * sigmoid(2.0 * inner, fused)
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
#[must_use]
pub fn silu(x: f32, fused: Fused) -> f32 {
    x * sigmoid(x, fused)
}

/// The hyperbolic tangent, to 2e-7; NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32, fused: Fused) -> f32 {
    multiply_add(2.0, sigmoid(2.0 * x, fused), -1.0, fused)
}

/// `1 / (1 + exp(-x))`; NaN stays NaN.
#[inline(always)]
fn sigmoid(x: f32, fused: Fused) -> f32 {
    // Beyond, it is 0 or 1 within f32's rounding, and the exponential would overflow.
    1.0 / (1.0 + exp(-x.clamp(-80.0, 80.0), fused))
}

/// From here on erf is 1 within f32's rounding.
const ERF_END: f32 = 3.8;

/// `erf(x) / x` as a polynomial of `u = 2 (x / ERF_END)^2 - 1`, highest power first.
///
/// A least-squares fit at 4000 Chebyshev nodes weighted by `x`, made with numpy.
const ERF: [f32; 15] = [
    9.789_371e-4,
    -2.674_407_3e-3,
    2.507_642_1e-3,
    -3.363_535e-3,
    9.771_174e-3,
    -0.018_259_851,
    0.026_804_633,
    -0.038_979_71,
    0.055_021,
    -0.072_504_98,
    0.090_838_05,
    -0.111_186_74,
    0.137_739_23,
    -0.185_641_17,
    0.372_107_63,
];

/// The error function to 3e-7; NaN stays NaN.
#[inline(always)]
fn erf(x: f32, fused: Fused) -> f32 {
    let clamped = x.clamp(-ERF_END, ERF_END);
    let u = multiply_add(clamped * clamped, 2.0 / (ERF_END * ERF_END), -1.0, fused);
    (clamped * polynomial(&ERF, u, fused)).clamp(-1.0, 1.0)
}

/// Below this, e^x is a denormal number: it is 0 here, as in a softmax it might as well be.
const EXP_LEAST: f32 = -87.0;
/// Adding it leaves the nearest integer in the low bits of an f32 (1.5 x 2^23).
pub const ROUND: f32 = 12_582_912.0;
/// The Taylor polynomial.
const EXP: [f32; 8] = [
    1.0 / 5040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e^x to 2e-7 of its value for x <= 88: 2^n times a polynomial of what is left; NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn exp(x: f32, fused: Fused) -> f32 {
    let rounded = multiply_add(x, std::f32::consts::LOG2_E, ROUND, fused);
    let n = rounded - ROUND;
    // ln 2 in two parts, so that n times the first is exact.
    let r = multiply_add(n, -0.693_359_4, x, fused);
    let r = multiply_add(n, 2.121_944_4e-4, r, fused);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    let product = polynomial(&EXP, r, fused) * power;
    if x < EXP_LEAST { 0.0 } else { product }
}

/// `2^x` for x between -0.5 and 0.5, highest power first: a least-squares fit at 4000 Chebyshev nodes, relative, made with
/// numpy.
const EXP2: [f32; 6] = [
    1.326_697_1e-3,
    9.675_46e-3,
    0.055_507_425,
    0.240_221_22,
    0.693_146_94,
    1.000_000_1,
];

/// 2^x to 3e-7 of its value for x <= 127; below -126 it is as good as 0. NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn exp2(x: f32, fused: Fused) -> f32 {
    let x = if x < -126.0 { -126.0 } else { x };
    let rounded = x + ROUND;
    let rest = x - (rounded - ROUND);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    polynomial(&EXP2, rest, fused) * power
}

/// Numbers that sums and the like are taken of at once, in lanes of their own.
pub const LANES: usize = 32;

/// Folds lanes into one number, halves onto halves; `N` is a power of 2.
///
/// Not inlined: the compiler would cut the lanes of the loop before it into the pieces that are wanted here.
#[inline(never)]
#[must_use]
pub fn fold<T: Copy, const N: usize>(mut lanes: [T; N], of: impl Fn(T, T) -> T) -> T {
    let mut n = N / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] = of(lanes[i], lanes[i + n]);
        }
        n /= 2;
    }
    lanes[0]
}

/// Sums a function of each number in lanes, which is both quicker and more exact than one after another.
#[inline(always)]
#[must_use]
pub fn sum(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| of(*x)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += of(*x);
        }
    }
    fold(lanes, |a, b| a + b) + rest
}

/// `a . b`, of rows of one length.
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    vectorized(
        #[inline(always)]
        |fused| {
            let mut lanes = [0.0_f32; LANES];
            let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest = left.remainder().iter().zip(right.remainder());
            let rest: f32 = rest.map(|(a, b)| a * b).sum();
            for (a, b) in left.zip(right) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane = multiply_add(*a, *b, *lane, fused);
                }
            }
            fold(lanes, |a, b| a + b) + rest
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_within_its_bound_everywhere() {
        for fused in [false, true] {
            let erf = |x| erf(x, fused);
            for i in -60_000..=60_000 {
                let x = i as f32 * 1e-4;
                let exact = libm::erf(f64::from(x));
                assert!(
                    (f64::from(erf(x)) - exact).abs() < 3e-7,
                    "erf({x}) = {}, exact {exact}",
                    erf(x)
                );
            }
            assert_eq!((erf(f32::INFINITY), erf(f32::NEG_INFINITY)), (1.0, -1.0));
            assert!(erf(f32::NAN).is_nan());
        }
    }

    #[test]
    fn exp_is_within_its_bound_everywhere() {
        for fused in [false, true] {
            let exp = |x| exp(x, fused);
            for i in -86_999..=80_000 {
                let x = i as f32 * 1e-3;
                let exact = f64::from(x).exp();
                assert!(
                    (f64::from(exp(x)) / exact - 1.0).abs() < 2e-7,
                    "exp({x}) = {}, exact {exact}",
                    exp(x)
                );
            }
            let ends = (exp(-100.0), exp(f32::NEG_INFINITY), exp(0.0));
            assert_eq!(ends, (0.0, 0.0, 1.0));
            assert!(exp(f32::NAN).is_nan());
        }
    }
    #[test]
    fn exp2_is_within_its_bound_everywhere() {
        for fused in [false, true] {
            for i in -125_999..=126_999 {
                let x = i as f32 * 1e-3;
                let (got, exact) = (exp2(x, fused), f64::from(x).exp2());
                let far = (f64::from(got) / exact - 1.0).abs();
                assert!(far < 3e-7, "2^{x} = {got}, exact {exact}");
            }
            for x in [-127.0, -1e30, f32::NEG_INFINITY] {
                assert!((0.0..1e-37).contains(&exp2(x, fused)), "{x}");
            }
            assert!(exp2(f32::NAN, fused).is_nan());
            assert!(exp2(f32::from_bits(0x7fff_ffff), fused).is_nan());
        }
    }

    #[test]
    fn sums_and_folds_take_every_number_once() {
        for n in [0, 1, 31, 32, 100] {
            let row: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let expected: f32 = row.iter().map(|x| x + 1.0).sum();
            assert_eq!(sum(&row, |x| x + 1.0), expected, "{n}");
        }
        let lanes: [f32; LANES] = std::array::from_fn(|i| (i * 7 % 32) as f32);
        assert_eq!(fold(lanes, f32::max), 31.0);
    }
}
