//! The invariants of ARCHITECTURE.md that are absences: what stands where it must not.

use std::path::{Path, PathBuf};

use crate::support::root;

/// Rust files under a folder, with their text up to the unit tests.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&root().join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
            && !path.ends_with("testing.rs")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text
                .split("#[cfg(test)]")
                .next()
                .unwrap_or_default()
                .to_owned();
            found.push((path.strip_prefix(root()).unwrap().to_owned(), code));
        }
    }
}

/// Asserts that none of the words stands in code outside the places that may say them.
fn only_in(folder: &str, words: &[&str], places: &[&str]) {
    for (path, code) in sources(folder) {
        let shown = path.to_str().unwrap();
        if places.iter().any(|place| shown.starts_with(place)) {
            continue;
        }
        let code_lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code_lines {
            let found = words.iter().find(|word| line.contains(*word));
            assert!(found.is_none(), "{shown} says {}: {line}", found.unwrap());
        }
    }
}

#[test]
fn axum_and_status_codes_stay_in_http() {
    only_in("src", &["axum", "StatusCode"], &["src/http"]);
    only_in("src/http", &["StatusCode::"], &["src/http/error.rs"]);
    only_in("src", &[".route("], &["src/http/routes.rs"]);
}

#[test]
fn libraries_stay_behind_their_module() {
    only_in("src", &["moka"], &["src/cache.rs"]);
    only_in("src", &["redb::"], &["src/cache/file.rs"]);
    only_in("src", &["prometheus_client"], &["src/metrics"]);
    only_in(
        "src",
        &["\"embedgate_"],
        &["src/metrics", "src/telemetry.rs"],
    );
    only_in("src", &["wasmtime", "wasmparser"], &["src/plugin/"]);
    only_in(
        "src",
        &["reqwest", "jsonwebtoken::decode"],
        &["src/plugin/"],
    );
    only_in("src", &["plotters"], &["src/bench/plot.rs"]);
    only_in("src", &["candle_core", "candle_nn", " ort::"], &[]);
    only_in(
        "backends/core",
        &["candle", "ort::", "tokio", "axum"],
        &["backends/core/src/backend.rs"],
    );
    only_in(
        "backends/candle",
        &["ort::", "tokio", "axum", "tokenizers"],
        &[],
    );
    only_in(
        "backends/cpu/src",
        &["candle_core", "ort::", "tokio", "axum", "tokenizers"],
        &[],
    );
    only_in(
        "backends/onnx/src",
        &["candle_core", "tokio", "axum", "tokenizers"],
        &[],
    );
}

#[test]
fn the_environment_is_read_in_one_place() {
    only_in("src", &["std::env::", "env::var"], &["src/config.rs"]);
    // A test that starts itself.
    only_in(
        "backends",
        &["std::env::", "env::var"],
        &["backends/cpu/tests/guarded.rs"],
    );
}

#[test]
fn the_batching_rule_knows_neither_clocks_nor_channels() {
    let (_, code) = sources("src/batch")
        .into_iter()
        .find(|(path, _)| path.ends_with("queue.rs"))
        .unwrap();
    for word in ["tokio", "Instant", "Duration", "async", "Mutex"] {
        assert!(
            !code
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word)),
            "{word}"
        );
    }
}

#[test]
fn guests_get_no_wasi_and_no_unsafe_but_one() {
    only_in("src", &["wasmtime_wasi"], &[]);
    only_in("src", &["unsafe {"], &["src/plugin/load.rs"]);
    // The second is an allocator of tests.
    let allowed = [
        "backends/cpu/src/onednn",
        "backends/cpu/tests/support/memory.rs",
    ];
    only_in("backends", &["unsafe"], &allowed);
}

#[test]
fn every_queue_is_bounded() {
    for folder in ["src", "backends"] {
        only_in(folder, &["unbounded", "std::sync::mpsc"], &[]);
    }
}
