//! Numbers as they are kept, in f32 or in halves.

use embedgate_config::ValuePrecision;
use half::f16;

/// Numbers as they are kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Numbers {
    /// As computed.
    F32(Box<[f32]>),
    /// Halves of the precision, each to be multiplied by the scale: the largest number is 1 before that, so that none
    /// is too large for 16 bits.
    F16 {
        /// The largest absolute number.
        scale: f32,
        /// Each number divided by the scale.
        values: Box<[f16]>,
    },
}

impl Numbers {
    /// Rounds numbers to a precision.
    pub(super) fn new(numbers: Vec<f32>, precision: ValuePrecision) -> Self {
        match precision {
            ValuePrecision::F32 => Self::F32(numbers.into()),
            ValuePrecision::F16 => {
                let largest = numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                // Zeros stay zeros, whatever they are divided by; so do numbers too small to divide by.
                let scale = if largest.is_normal() { largest } else { 1.0 };
                let values = numbers.iter().map(|x| f16::from_f32(x / scale)).collect();
                Self::F16 { scale, values }
            }
        }
    }

    /// Counts the numbers.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16 { values, .. } => values.len(),
        }
    }

    /// The first `n` of them.
    #[must_use]
    pub(crate) fn first(&self, n: usize) -> Vec<f32> {
        let n = n.min(self.len());
        match self {
            Self::F32(values) => values[..n].to_vec(),
            Self::F16 { scale, values } => values[..n].iter().map(|x| x.to_f32() * scale).collect(),
        }
    }

    /// All of them.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<f32> {
        self.first(self.len())
    }

    /// Memory that the numbers take.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(&**values),
            Self::F16 { values, .. } => size_of_val(&**values),
        }
    }

    /// Returns true when the numbers are kept in this precision.
    pub(super) fn is_of(&self, precision: ValuePrecision) -> bool {
        matches!(self, Self::F32(_)) == (precision == ValuePrecision::F32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_close_whatever_the_scale_and_rounding_again_changes_nothing() {
        for scale in [1e-30_f32, 1.0, 70_000.0, 1e30] {
            let exact: Vec<f32> = (1..100).map(|i| scale * (i as f32 / 99.0)).collect();
            let kept = Numbers::new(exact.clone(), ValuePrecision::F16);
            let rounded = kept.all();
            for (a, b) in exact.iter().zip(&rounded) {
                assert!((a / b - 1.0).abs() < 1e-3, "{a} {b}");
            }
            assert_eq!(
                Numbers::new(rounded.clone(), ValuePrecision::F16).all(),
                rounded
            );
        }
        let zeros = Numbers::new(vec![0.0; 3], ValuePrecision::F16);
        assert_eq!(zeros.all(), [0.0; 3]);
    }
}
