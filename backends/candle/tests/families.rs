//! Models of every family against their reference libraries, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/families.rs"]
mod families;

use embedgate_candle::{CandleBackend, Options};
use embedgate_core::Pooling;

fn load(name: &str, stock_operations: bool) -> CandleBackend {
    let folder = families::open(name);
    let options = Options {
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

#[test]
fn every_family_keeps_the_contract() {
    for name in all() {
        families::keeps_the_contract(&mut load(name, false));
    }
}
