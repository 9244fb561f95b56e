//! Models of every family against their reference libraries, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/families.rs"]
mod families;

use embedgate_candle::{CandleBackend, Options};
use embedgate_core::{Pooling, Precision};

fn load(name: &str, stock_operations: bool) -> CandleBackend {
    load_in(name, Precision::F32, stock_operations)
}

fn load_in(name: &str, precision: Precision, stock_operations: bool) -> CandleBackend {
    let folder = families::open(name);
    let options = Options {
        precision,
        stock_operations,
        ..Options::on_processor(Pooling::MEAN, folder.max_sequence_tokens, 2)
    };
    CandleBackend::load(&folder, options).unwrap()
}

fn all() -> impl Iterator<Item = &'static str> {
    let embedders = families::EMBEDDERS.iter();
    embedders.chain(families::CROSS_ENCODERS).copied()
}

#[test]
fn results_equal_the_references() {
    for name in all() {
        families::results_equal_the_reference(&mut load(name, false), name);
    }
}

#[test]
fn candles_stock_operations_give_the_same() {
    for name in all() {
        families::results_equal_the_reference(&mut load(name, true), name);
    }
}

/// As on a card, where candle has no operations of this crate's own.
#[test]
fn f16_stays_near_the_references() {
    for name in families::EMBEDDERS {
        let mut backend = load_in(name, Precision::F16, true);
        let cosine = families::least_cosine(&mut backend, name);
        assert!(cosine > 0.999, "{name}: {cosine}");
    }
}

/// A layer that has more than the model's type says would give other vectors, and no error.
#[test]
fn a_tensor_of_a_layer_that_nobody_reads_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let qwen = families::open("qwen3");
    let text = std::fs::read_to_string(qwen.path.join("config.json")).unwrap();
    let text = text.replace("\"qwen3\"", "\"mistral\"");
    std::fs::write(folder.path().join("config.json"), text).unwrap();
    let weights = folder.path().join("model.safetensors");
    std::fs::copy(qwen.path.join("model.safetensors"), weights).unwrap();
    let mistral = embedgate_core::ModelFolder::open(folder.path()).unwrap();
    let options = Options::on_processor(Pooling::MEAN, 100, 1);
    let refused = CandleBackend::load(&mistral, options)
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("k_norm.weight\" belongs to a layer"),
        "{refused}"
    );
}

#[test]
fn every_family_keeps_the_contract() {
    for name in all() {
        families::keeps_the_contract(&mut load(name, false));
    }
}
