//! Guests in JavaScript and Python.

use crate::support::installed;
use embedgate_test_support::{embedgate, root, run};
use std::path::Path;

/// Runs a file of cases, and asserts that all of them hold.
fn assert_cases(component: &Path, cases: &Path) {
    let (code, out, errors) = run(embedgate()
        .args(["plugin", "test"])
        .arg(component)
        .arg(cases));
    assert_eq!(code, Some(0), "{}:\n{out}{errors}", cases.display());
    assert!(out.contains("ok"), "{out}");
}

#[test]
fn guests_in_javascript_and_python_run() {
    for name in ["js-normalize", "python-tenant"] {
        let component = installed(&format!("plugins/{name}.wasm"));
        assert_cases(
            &component,
            &root().join(format!("plugins/{name}/cases.toml")),
        );
    }
}
