//! Number formats that the engine runs in.

use crate::onednn::Format;

/// The number format of the encoder's matrix products. Everything else (normalizations, softmax, heads) is in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    F32,
    Bf16,
    /// Bytes: weights scaled by output, activations by token. Attention is in bfloat16.
    Int8,
}

impl Precision {
    /// Of operands.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::Bf16,
            Self::Int8 => Format::S8,
        }
    }

    /// What is between products.
    pub(crate) fn between(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::Bf16 | Self::Int8 => Format::Bf16,
        }
    }
}
