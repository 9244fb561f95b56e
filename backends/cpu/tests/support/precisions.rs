//! The precisions that this processor runs.

use embedgate_core::Precision;
use embedgate_cpu::runtime;

use crate::support::candidates;

/// See [`promised`].
const PROMISED: [(Precision, f64, f64); 3] = [
    (Precision::F32, 0.999_999, 0.999_999),
    (Precision::Bf16, 0.9998, 0.9996),
    (Precision::Int8, 0.998, 0.996),
];

/// True for f32 on every processor, for bf16 with AVX-512, for int8 with AVX-512's products of bytes.
pub(crate) fn runs(precision: Precision) -> bool {
    let library = runtime::load(&candidates()).unwrap();
    embedgate_cpu::runs(library, precision)
}

/// All of them, f32 first.
pub(crate) fn precisions() -> impl Iterator<Item = Precision> {
    promised().map(|(precision, ..)| precision)
}

/// All of them with what they promise: the least cosines with the reference, of dense and of token vectors.
pub(crate) fn promised() -> impl Iterator<Item = (Precision, f64, f64)> {
    let all = PROMISED.into_iter();
    all.filter(|(precision, ..)| runs(*precision))
}
