//! Every kernel against arithmetic in f64, in the very PTX that ships, for every kind of card: each in a process whose driver has one.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/process.rs"]
#[expect(dead_code, reason = "other tests ask for their settings")]
mod process;
#[path = "support/simulator.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod simulator;

use embedgate_cuda::Forms;
use sha2::{Digest, Sha256};

fn check(test: &str, capability: &str) {
    if process::in_one_with(test, &format!("capability={capability}")) {
        let device = simulator::open().unwrap();
        let findings = embedgate_cuda::examine(&device, Forms::First).unwrap();
        assert_eq!(findings.len(), 54);
        for finding in findings {
            assert_eq!(finding.problem, None, "{}", finding.kernel);
        }
    }
}

#[test]
fn every_kernel_gives_right_results_on_ampere() {
    check("every_kernel_gives_right_results_on_ampere", "8.0");
}

#[test]
fn every_kernel_gives_right_results_on_hopper() {
    check("every_kernel_gives_right_results_on_hopper", "9.0");
}

#[test]
fn what_is_checked_in_was_made_of_these_sources() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut hash = Sha256::new();
    for name in ["kernels.py", "compile.py", "requirements.txt"] {
        hash.update(std::fs::read(folder.join(name)).unwrap());
    }
    let hash: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(embedgate_cuda::kernels_id(), hash, "run scripts/kernels");
}
