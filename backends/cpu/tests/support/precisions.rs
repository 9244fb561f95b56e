//! The precisions that this processor runs.

use embedgate_core::Precision;
use embedgate_cpu::runtime;

use crate::support::candidates;

/// True for f32 on every processor, for bf16 with AVX-512, for int8 with AVX-512's products of bytes.
pub(crate) fn runs(precision: Precision) -> bool {
    let library = runtime::load(&candidates()).unwrap();
    embedgate_cpu::runs(library, precision)
}

/// All of them, f32 first.
pub(crate) fn precisions() -> impl Iterator<Item = Precision> {
    let all = [Precision::F32, Precision::Bf16, Precision::Int8];
    all.into_iter().filter(|precision| runs(*precision))
}
