//! Guests in JavaScript and Python.

use crate::support::installed;
use embedgate_test_support::{assert_cases, root};

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
