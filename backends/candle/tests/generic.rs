//! The path that is for any device and format: candle's stock operations, on the processor, beside this crate's own in f32.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../cpu/tests/support/reference.rs"]
#[expect(dead_code, reason = "only its cosine is needed")]
mod reference;

use std::path::Path;

use embedgate_candle::{CandleBackend, Options};
use embedgate_core::{
    Backend, EmbeddingBatch, Head, ModelFolder, Outputs, Pooling, Precision, TokenBatch,
    conformance,
};

fn load(precision: Precision, stock_operations: bool) -> CandleBackend {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3");
    let options = Options {
        precision,
        stock_operations,
        ..Options::on_processor(Pooling::CLS, 512, 2)
    };
    CandleBackend::load(&ModelFolder::open(&path).unwrap(), options).unwrap()
}

fn embed(mut backend: CandleBackend) -> EmbeddingBatch {
    let sequence = |n: u32| -> Vec<u32> { (0..n).map(|i| (i * 31 + n) % 700).collect() };
    let sequences = [sequence(3), sequence(120), sequence(1), sequence(33)];
    let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
    backend.embed(&batch, Outputs::BGE_M3).unwrap()
}

/// The least cosine of dense vectors and of those of tokens.
fn nearness(a: &EmbeddingBatch, b: &EmbeddingBatch) -> f64 {
    let matrices = |batch: &EmbeddingBatch| {
        let tokens = batch.rows(Head::MultiVector).unwrap();
        let all = std::iter::once(batch.vectors(Head::Dense).unwrap()).chain(tokens);
        all.cloned().collect::<Vec<_>>()
    };
    let (a, b) = (matrices(a), matrices(b));
    let of = |i: usize| (0..a[i].rows()).map(move |row| (i, row));
    let all = (0..a.len()).flat_map(of);
    let least = all.map(|(i, row)| reference::cosine(a[i].row(row), b[i].row(row)));
    let least: Vec<f64> = least.collect();
    assert!(least.len() > 100 && least.iter().all(|cosine| cosine.is_finite()));
    least.into_iter().fold(1.0, f64::min)
}

#[test]
fn candles_stock_operations_keep_the_contract() {
    assert_eq!(conformance::check(&mut load(Precision::F32, true)), Ok(()));
}

#[test]
fn every_format_is_near_f32() {
    let expected = embed(load(Precision::F32, false));
    for (precision, least) in [
        (Precision::F32, 0.999_999),
        (Precision::F16, 0.9999),
        (Precision::Bf16, 0.999),
    ] {
        let backend = load(precision, true);
        assert_eq!(backend.info().precision, precision);
        let near = nearness(&embed(backend), &expected);
        assert!(near >= least, "{precision}: {near}");
    }
}

#[test]
fn int8_is_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3");
    let options = Options {
        precision: Precision::Int8,
        ..Options::on_processor(Pooling::CLS, 512, 2)
    };
    let loaded = CandleBackend::load(&ModelFolder::open(&path).unwrap(), options);
    let said = loaded.err().unwrap().to_string();
    assert_eq!(said, "candle does not run models in int8");
}
