//! Models of every family against their reference libraries, and against the contract.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "../../../tests/support/families.rs"]
mod families;
#[path = "support/precisions.rs"]
mod precisions;
#[path = "support/load.rs"]
mod support;

/// The least cosine of any precision. Narrow random models lose more than real ones, and what is computed wrongly is near 0.
const LEAST: f64 = 0.7;

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
