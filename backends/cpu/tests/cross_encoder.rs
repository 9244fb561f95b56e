//! Cross-encoders in f32 against scores made by transformers, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/rerankers.rs"]
mod rerankers;
#[path = "support/load.rs"]
mod support;

use embedgate_core::Precision;
use embedgate_cpu::CpuBackend;

fn load(name: &str) -> CpuBackend {
    support::load(&rerankers::open(name), Precision::F32)
}

#[test]
fn scores_equal_transformers_alone_and_batched() {
    for name in rerankers::NAMES {
        rerankers::scores_equal_transformers(&mut load(name), name);
    }
}

#[test]
fn segments_change_the_scores_of_bert() {
    rerankers::segments_change_scores(&mut load("bert"));
}

#[test]
fn cross_encoders_give_scores_alone() {
    for name in rerankers::NAMES {
        rerankers::it_gives_scores_alone(&mut load(name));
    }
}
