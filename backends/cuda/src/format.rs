//! Numbers of 16 bits, in which weights and rows are on a device.

use embedgate_core::Precision;
use half::{bf16, f16};
use serde::Deserialize;

/// The format of weights and rows; sums are in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// 11 bits of precision, up to 65504.
    F16,
    /// 8 bits of precision, as far as f32 goes.
    Bf16,
}

impl Format {
    /// The bits of the nearest number.
    #[must_use]
    pub(crate) fn round(self, x: f32) -> u16 {
        match self {
            Self::F16 => f16::from_f32(x).to_bits(),
            Self::Bf16 => bf16::from_f32(x).to_bits(),
        }
    }

    /// The number of these bits.
    #[must_use]
    pub(crate) fn number(self, bits: u16) -> f32 {
        match self {
            Self::F16 => f16::from_bits(bits).to_f32(),
            Self::Bf16 => bf16::from_bits(bits).to_f32(),
        }
    }

    /// The largest number.
    #[must_use]
    pub(crate) fn largest(self) -> f32 {
        match self {
            Self::F16 => f16::MAX.to_f32(),
            Self::Bf16 => bf16::MAX.to_f32(),
        }
    }

    /// Advice to whose numbers are larger.
    #[must_use]
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::F16 => ": set backend.precision = \"bf16\"",
            Self::Bf16 => "",
        }
    }

    /// The largest error of rounding, relative to the number.
    #[must_use]
    pub(crate) fn rounding(self) -> f32 {
        match self {
            Self::F16 => 1.0 / 2048.0,
            Self::Bf16 => 1.0 / 256.0,
        }
    }
}

impl From<Format> for Precision {
    fn from(format: Format) -> Self {
        match format {
            Format::F16 => Self::F16,
            Format::Bf16 => Self::Bf16,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Precision::from(*self).fmt(f)
    }
}
