//! Tests whose driver plays something: they run themselves in a process of their own, since a process has one driver.

use std::process::Command;

/// The variable of the simulator's settings.
const SETTINGS: &str = "CUDA_SIMULATOR";

/// True in the process of such a test.
#[expect(clippy::disallowed_methods, reason = "it is told so by its parent")]
pub(crate) fn is_one() -> bool {
    std::env::var_os(SETTINGS).is_some()
}

/// One of the settings of this process.
#[expect(clippy::disallowed_methods, reason = "it is told so by its parent")]
pub(crate) fn setting(name: &str) -> String {
    let settings = std::env::var(SETTINGS).unwrap();
    let mut all = settings
        .split_whitespace()
        .filter_map(|one| one.split_once('='));
    all.find(|(found, _)| *found == name).unwrap().1.to_owned()
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
