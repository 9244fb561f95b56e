//! `backend.precision`: the number format of matrix products.

use embedgate_core::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number format, or none in particular.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// As the processor has instructions for.
    Auto,
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    Bf16,
    /// Bytes.
    Int8,
}

impl PrecisionChoice {
    /// Returns the precision that was stated, or none for `auto`.
    #[must_use]
    pub fn said(self) -> Option<Precision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(Precision::F32),
            Self::F16 => Some(Precision::F16),
            Self::Bf16 => Some(Precision::Bf16),
            Self::Int8 => Some(Precision::Int8),
        }
    }
}

impl From<Precision> for PrecisionChoice {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
        }
    }
}
