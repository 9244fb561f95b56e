//! Functions of one number, made so that the compiler turns a loop over them into vectors: no branches, no calls.

/// `x / 2 (1 + erf(x / sqrt 2))`.
#[inline(always)]
#[must_use]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The tanh approximation of GELU.
///
/// Source: Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2.
#[inline(always)]
#[must_use]
pub fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

/// From here on erf is 1 within f32's rounding.
const ERF_END: f32 = 3.8;

/// Chebyshev coefficients of `erf(x) / x` as a function of `u = 2 (x / ERF_END)^2 - 1`, lowest degree first.
///
/// A least-squares fit at 4000 Chebyshev nodes weighted by `x`, made with numpy.
const ERF: [f32; 15] = [
    0.502_740_3,
    -0.347_289_1,
    0.157_143_07,
    -0.071_160_495,
    0.030_670_159,
    -0.012_371_58,
    0.004_642_484_7,
    -0.001_618_402_9,
    0.000_524_564_8,
    -0.000_158_387_92,
    4.465_196e-5,
    -1.177_281_1e-5,
    2.897_423e-6,
    -6.529_315e-7,
    1.194_991_6e-7,
];

/// The error function to 3e-7. Without branches or calls, so that the compiler makes vectors of it; NaN stays NaN.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let clamped = x.clamp(-ERF_END, ERF_END);
    let u = clamped * clamped * (2.0 / (ERF_END * ERF_END)) - 1.0;
    let (mut b1, mut b2) = (0.0_f32, 0.0_f32);
    for c in ERF[1..].iter().rev() {
        (b1, b2) = (2.0 * u * b1 - b2 + c, b1);
    }
    (clamped * (u * b1 - b2 + ERF[0])).clamp(-1.0, 1.0)
}

/// Below this, e^x is a denormal number: it is 0 here, as in a softmax it might as well be.
const EXP_LEAST: f32 = -87.0;
/// Adding it leaves the nearest integer in the low bits of an f32 (1.5 x 2^23).
const ROUND: f32 = 12_582_912.0;

/// e^x to 2e-7 of its value for x <= 88: 2^n times the Taylor polynomial of degree 7 of what is left. Without branches or
/// calls, so that the compiler makes vectors of it; NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, so that n times the first is exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + c;
    }
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < EXP_LEAST { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_within_its_bound_everywhere() {
        for i in -60_000..=60_000 {
            let x = i as f32 * 1e-4;
            let exact = libm::erf(f64::from(x));
            assert!(
                (f64::from(erf(x)) - exact).abs() < 3e-7,
                "erf({x}) = {}, exact {exact}",
                erf(x)
            );
        }
        assert_eq!(erf(f32::INFINITY), 1.0);
        assert_eq!(erf(f32::NEG_INFINITY), -1.0);
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn exp_is_within_its_bound_everywhere() {
        for i in -86_999..=80_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / exact - 1.0).abs() < 2e-7,
                "exp({x}) = {}, exact {exact}",
                exp(x)
            );
        }
        assert_eq!(
            (exp(-100.0), exp(f32::NEG_INFINITY), exp(0.0)),
            (0.0, 0.0, 1.0)
        );
        assert!(exp(f32::NAN).is_nan());
    }
}
