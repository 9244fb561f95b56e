//! Models of every family against their reference libraries, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/families.rs"]
mod families;
#[path = "support/precisions.rs"]
mod precisions;
#[path = "support/reference.rs"]
mod reference;
#[path = "support/load.rs"]
mod support;

/// The least cosine of any precision. Narrow random models lose more than real ones, and what is computed wrongly is near 0.
const LEAST: f64 = 0.7;

use embedgate_core::{Backend, Head, Outputs, Precision};
use embedgate_cpu::CpuBackend;

fn load(name: &str) -> CpuBackend {
    support::load(&families::open(name), Precision::F32)
}

fn all() -> impl Iterator<Item = &'static str> {
    let embedders = families::EMBEDDERS.iter();
    embedders.chain(families::CROSS_ENCODERS).copied()
}

#[test]
fn results_equal_the_references() {
    for name in all() {
        families::results_equal_the_reference(&mut load(name), name);
    }
}

/// Longer than tiles of queries (128) and of keys (512), so that windows, the sight of tokens before alone and numbers by distance go
/// over their edges. candle has none of them.
#[test]
fn long_sequences_are_those_of_candle() {
    let families = [
        "deberta-v2",
        "gemma3_text",
        "gte",
        "jina",
        "mistral",
        "modernbert",
        "nomic",
        "qwen3",
        "t5",
    ];
    for name in families {
        let mut folder = families::open(name);
        folder.max_sequence_tokens = 1200;
        folder.encoder.max_sequence_tokens = 1200;
        let batch = reference::batch(&[1, 1200, 513, 700], folder.encoder.vocabulary_size());
        let outputs = Outputs::DENSE.with(Head::TokenVectors);
        let expected = reference::candle(&folder).embed(&batch, outputs).unwrap();
        let got = support::load(&folder, Precision::F32).embed(&batch, outputs);
        let (dense, tokens) = reference::least_cosines(&got.unwrap(), &expected);
        assert!(
            dense > 0.999_999 && tokens > 0.999_999,
            "{name}: {dense} {tokens}"
        );
    }
}

#[test]
fn coarser_precisions_stay_near_the_references() {
    for precision in precisions::precisions() {
        for name in families::EMBEDDERS {
            let mut backend = support::load(&families::open(name), precision);
            let cosine = families::least_cosine(&mut backend, name);
            println!("{precision} {name}: {cosine:.6}");
            assert!(cosine > LEAST, "{precision} {name}: {cosine}");
        }
    }
}

#[test]
fn every_family_keeps_the_contract() {
    for name in all() {
        families::keeps_the_contract(&mut load(name));
    }
}
