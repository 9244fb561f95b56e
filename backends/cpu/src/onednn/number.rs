//! The numbers that the library calculates with, and its names for their formats.

use std::ffi::c_int;

use half::bf16;

/// Number formats of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    Bf16,
    S8,
}

impl Format {
    /// `dnnl_data_type_t`.
    pub(super) fn code(self) -> c_int {
        match self {
            Self::F32 => 3,
            Self::Bf16 => 2,
            Self::S8 => 5,
        }
    }
}

/// A number that the library calculates with.
pub(crate) trait Number: Copy + Default + Send + Sync + 'static {
    const FORMAT: Format;
}

impl Number for f32 {
    const FORMAT: Format = Format::F32;
}

impl Number for bf16 {
    const FORMAT: Format = Format::Bf16;
}

impl Number for i8 {
    const FORMAT: Format = Format::S8;
}
