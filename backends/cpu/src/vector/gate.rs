//! The product of the two halves of a row, one of which goes through an activation.

use embedgate_core::{
    encoder::{Activation, Gate},
    math::{Fused, gelu, gelu_tanh, silu, tanh, vectorized},
};

use super::Rounded;

/// `to = activation(gate half of row) * other half`; `to` is half as long as the row.
pub(crate) fn gate<T: Rounded>(row: &[T], half: Gate, activation: Activation, to: &mut [f32]) {
    let (first, second) = row.split_at(to.len());
    let (gate, other) = match half {
        Gate::First => (first, second),
        Gate::Second => (second, first),
    };
    // Each of them is compiled into a loop of its own.
    match activation {
        Activation::Gelu => multiply(gate, other, to, gelu),
        Activation::GeluTanh => multiply(gate, other, to, gelu_tanh),
        Activation::Relu => multiply(gate, other, to, |x, _| x.max(0.0)),
        Activation::Silu => multiply(gate, other, to, silu),
        Activation::Tanh => multiply(gate, other, to, tanh),
    }
}

#[inline(always)]
fn multiply<T: Rounded>(
    gate: &[T],
    other: &[T],
    to: &mut [f32],
    activation: impl Fn(f32, Fused) -> f32,
) {
    vectorized(
        #[inline(always)]
        |fused| {
            for ((to, gate), other) in to.iter_mut().zip(gate).zip(other) {
                *to = activation(gate.to_f32(), fused) * other.to_f32();
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_half_goes_through_the_activation() {
        let row = [-1.0_f32, 2.0, 3.0, -4.0];
        let mut to = [0.0; 2];
        gate(&row, Gate::First, Activation::Relu, &mut to);
        assert_eq!(to, [0.0, -8.0]);
        gate(&row, Gate::Second, Activation::Relu, &mut to);
        assert_eq!(to, [-3.0, 0.0]);
        gate(&row, Gate::First, Activation::Silu, &mut to);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        assert!((to[0] - silu(-1.0) * 3.0).abs() < 1e-6);
        assert!((to[1] + silu(2.0) * 4.0).abs() < 1e-6);
    }
}
