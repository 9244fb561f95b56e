//! What a precision means here. It is that of the encoder's matrix products: everything else (normalizations, softmax,
//! heads) is in f32. With bytes, weights are scaled by output and activations by token, and attention is in bfloat16 where
//! the processor has products of those.

use embedgate_core::Precision;

use crate::onednn::{Format, Instructions};

/// The format of a product's operands.
pub(crate) fn operands(precision: Precision) -> Format {
    match precision {
        Precision::F32 => Format::F32,
        Precision::Bf16 => Format::Bf16,
        Precision::Int8 => Format::S8,
    }
}

/// The format of what is between products, which attention reads as it is. Where the processor has no products of bfloat16,
/// the library is far slower with them than with f32.
pub(crate) fn between(precision: Precision, instructions: Instructions) -> Format {
    match precision {
        Precision::Int8 if instructions < Instructions::Avx512Bf16 => Format::F32,
        Precision::F32 => Format::F32,
        Precision::Bf16 | Precision::Int8 => Format::Bf16,
    }
}
