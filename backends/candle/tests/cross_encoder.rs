//! Cross-encoders against scores made by transformers, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/rerankers.rs"]
mod rerankers;

use embedgate_candle::{CandleBackend, Options};
use embedgate_core::Pooling;

fn load(name: &str) -> CandleBackend {
    let folder = rerankers::open(name);
    let options = Options::on_processor(Pooling::CLS, folder.max_sequence_tokens, 2);
    CandleBackend::load(&folder, options).unwrap()
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
