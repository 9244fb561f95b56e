//! The meaning of a precision in this backend. It is the precision of the encoder's matrix products: everything else
//! (normalizations, softmax, heads) is in f32. With bytes, weights are scaled by output and activations by token, and
//! attention is in bfloat16 where the processor has products of those.

use crate::onednn::{Format, Instructions};

/// The precisions that products of this backend have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    Bf16,
    Int8,
}

impl Precision {
    /// The one that is asked for, where there are such products.
    pub(crate) fn of(asked: embedgate_core::Precision) -> Option<Self> {
        match asked {
            embedgate_core::Precision::F32 => Some(Self::F32),
            embedgate_core::Precision::F16 => None,
            embedgate_core::Precision::Bf16 => Some(Self::Bf16),
            embedgate_core::Precision::Int8 => Some(Self::Int8),
        }
    }
}

/// The format of a product's operands.
pub(crate) fn operands(precision: Precision) -> Format {
    match precision {
        Precision::F32 => Format::F32,
        Precision::Bf16 => Format::Bf16,
        Precision::Int8 => Format::S8,
    }
}

/// The precision of attention in a model of this precision, and of what products write. Where the processor has no
/// products of bfloat16, the library is far slower with them than with f32: bytes do without them there.
#[must_use]
pub fn of_attention(
    precision: embedgate_core::Precision,
    instructions: Instructions,
) -> embedgate_core::Precision {
    use embedgate_core::Precision;
    match precision {
        Precision::Int8 if instructions < Instructions::Avx512Bf16 => Precision::F32,
        Precision::Int8 => Precision::Bf16,
        Precision::F32 | Precision::F16 | Precision::Bf16 => precision,
    }
}

/// The fastest precision that this processor has instructions for and that keeps cosines of 0.9999: bytes are for who asks
/// for them.
#[must_use]
pub fn fastest(instructions: Instructions) -> embedgate_core::Precision {
    use embedgate_core::Precision;
    if instructions >= Instructions::Avx512Bf16 {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// Returns true when this processor has instructions for products of this precision.
#[must_use]
pub fn is_fast(precision: embedgate_core::Precision, instructions: Instructions) -> bool {
    use embedgate_core::Precision;
    let least = match precision {
        Precision::F16 => return false,
        Precision::F32 => Instructions::Avx2,
        Precision::Bf16 => Instructions::Avx512Bf16,
        Precision::Int8 => Instructions::Avx512Vnni,
    };
    instructions >= least
}

#[cfg(test)]
mod tests {
    use embedgate_core::Precision;

    use super::{fastest, is_fast, of_attention};
    use crate::onednn::Instructions;

    #[test]
    fn bytes_take_bfloat16_for_attention_only_where_there_are_products_of_it() {
        use Instructions::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni};
        let all = [Avx2, Avx512, Avx512Vnni, Avx512Bf16, Amx];
        let of = |precision| all.map(|instructions| of_attention(precision, instructions));
        let (floats, halves) = (Precision::F32, Precision::Bf16);
        let of_bytes = [floats, floats, floats, halves, halves];
        assert_eq!(of(Precision::Int8), of_bytes);
        assert_eq!((of(floats), of(halves)), ([floats; 5], [halves; 5]));
    }

    #[test]
    fn the_fastest_precision_is_one_that_the_processor_has() {
        use Instructions::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni};
        for instructions in [Avx2, Avx512, Avx512Vnni, Avx512Bf16, Amx] {
            assert!(is_fast(fastest(instructions), instructions));
        }
        assert!(!is_fast(Precision::Bf16, Avx512Vnni) && is_fast(Precision::Int8, Avx512Vnni));
        assert!(!is_fast(Precision::Int8, Avx512));
    }
}
