//! Tests whose driver plays something: they run themselves in a process of their own, since a process has one driver.

use std::process::Command;

/// What tells the simulator what to play.
const SETTINGS: &str = "CUDA_SIMULATOR";

/// Whether this is the process of such a test.
#[expect(clippy::disallowed_methods, reason = "it is told so by its parent")]
pub(crate) fn is_one() -> bool {
    std::env::var_os(SETTINGS).is_some()
}

/// Runs a test in a process of its own, with these settings of the simulator; there it is `true`.
#[expect(
    clippy::disallowed_methods,
    reason = "the test is a program of its own"
)]
pub(crate) fn in_one_with(test: &str, settings: &str) -> bool {
    if is_one() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(SETTINGS, settings);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{settings}: {said}");
    false
}
