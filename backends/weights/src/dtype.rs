//! The number formats of weights.

/// A number format that weights come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F16,
    BF16,
    F32,
    F64,
}

impl Dtype {
    /// Bytes of one number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}
