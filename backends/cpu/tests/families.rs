//! Models of every family against their reference libraries, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/families.rs"]
mod families;
#[path = "support/load.rs"]
mod support;

use embedgate_core::Precision;
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

#[test]
fn every_family_keeps_the_contract() {
    for name in all() {
        families::keeps_the_contract(&mut load(name));
    }
}
