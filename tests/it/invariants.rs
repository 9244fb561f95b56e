//! The invariants of ARCHITECTURE.md that are absences: what stands where it must not.

use embedgate_test_support::root;

use crate::sources::sources;

/// Asserts that none of the words stands in code outside the places that may say them.
fn only_in(folder: &str, words: &[&str], places: &[&str]) {
    for (path, code) in sources(&root().join(folder)) {
        let path = path.strip_prefix(root()).unwrap().to_owned();
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
    only_in(
        "crates",
        &["axum", "StatusCode"],
        // The status of what hubs answer, not of what is answered here.
        &["crates/tools/src/baseline.rs", "crates/hub"],
    );
    only_in("src/http", &["StatusCode::"], &["src/http/error.rs"]);
    only_in("src", &[".route("], &["src/http/routes.rs"]);
}

#[test]
fn libraries_stay_behind_their_module() {
    only_in("src", &["moka"], &["src/cache.rs"]);
    only_in("src", &["redb::"], &["src/cache/file/store"]);
    for folder in ["src", "crates"] {
        only_in(folder, &["prometheus_client"], &["crates/metrics"]);
        only_in(
            folder,
            &["\"embedgate_"],
            &["crates/metrics", "src/telemetry.rs"],
        );
        let host = &["crates/plugin-host/"];
        only_in(folder, &["wasmtime", "wasmparser"], host);
        only_in(folder, &["jsonwebtoken::decode"], host);
        only_in(
            folder,
            &["reqwest"],
            &["crates/plugin-host/", "crates/hub/", "crates/traces/"],
        );
        only_in(folder, &["opentelemetry"], &["crates/traces/"]);
        only_in(folder, &["plotters"], &["crates/tools/src/bench/plot.rs"]);
        only_in(
            folder,
            &["parquet::", "npyz"],
            &["crates/tools/src/columns"],
        );
    }
    only_in("src", &["candle_core", "candle_nn", " ort::"], &[]);
    only_in(
        "backends/weights",
        &["candle", "ort::", "tokio", "axum", "tokenizers"],
        &[],
    );
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
        &["candle", "ort::", "tokio", "axum", "tokenizers"],
        &[],
    );
    only_in(
        "backends/cuda/src",
        &["candle", "ort::", "tokio", "axum", "tokenizers"],
        &[],
    );
    only_in(
        "backends/onnx/src",
        &["candle", "tokio", "axum", "tokenizers"],
        &[],
    );
}

#[test]
fn the_environment_is_read_in_one_place() {
    only_in("src", &["std::env::", "env::var"], &[]);
    only_in(
        "crates",
        &["std::env::", "env::var"],
        &["crates/config/src/environment.rs"],
    );
    // Tests that start themselves.
    only_in(
        "backends",
        &["std::env::", "env::var"],
        &[
            "backends/cpu/tests/guarded.rs",
            "backends/cuda/tests/support/process.rs",
        ],
    );
}

#[test]
fn the_batching_rule_knows_neither_clocks_nor_channels() {
    let (_, code) = sources(&root().join("src/batch"))
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
    for folder in ["src", "crates"] {
        only_in(folder, &["wasmtime_wasi"], &[]);
        only_in(
            folder,
            &["unsafe {"],
            &["crates/plugin-host/src/wasm/load/compiled.rs"],
        );
    }
    // The third is an allocator of tests.
    let allowed = [
        "backends/core/src/allocator.rs",
        "backends/cpu/src/onednn",
        "backends/cpu/tests/support/memory.rs",
        "backends/cuda/src/calls.rs",
        "backends/cuda/src/device",
        "backends/cuda/src/ffi.rs",
        "backends/onnx/src/placement.rs",
    ];
    only_in("backends", &["unsafe"], &allowed);
}

#[test]
fn every_queue_is_bounded() {
    for folder in ["src", "crates", "backends"] {
        only_in(folder, &["unbounded", "std::sync::mpsc"], &[]);
    }
}

/// The tables of backends: a new backend is an entry in each.
const TABLES_OF_BACKENDS: [&str; 3] = [
    "crates/config/src/backend/table.rs",
    "src/model/engine.rs",
    "src/model/engine/",
];

#[test]
fn a_type_of_backend_is_named_in_its_tables_alone() {
    for folder in ["src", "crates"] {
        for (path, code) in sources(&root().join(folder)) {
            let path = path.strip_prefix(root()).unwrap().to_owned();
            let shown = path.to_str().unwrap();
            if TABLES_OF_BACKENDS
                .iter()
                .any(|table| shown.starts_with(table))
            {
                continue;
            }
            let named = code.lines().find(|line| names_a_variant(line));
            assert_eq!(
                named, None,
                "{shown} names a type of backend: ask its entry"
            );
        }
    }
}

/// Finds `BackendType::` with a variant behind it, or with a list of them; methods and constants are no variants.
fn names_a_variant(line: &str) -> bool {
    let mut behind = line.split("BackendType::").skip(1);
    behind.any(|rest| {
        let mut letters = rest.chars();
        match (letters.next(), letters.next()) {
            (Some('{' | '*'), _) => true,
            (Some(first), Some(second)) => first.is_uppercase() && second.is_lowercase(),
            _ => false,
        }
    })
}

#[test]
fn variants_are_told_from_methods_and_constants() {
    for line in [
        "BackendType::Cpu => 1,",
        "use BackendType::{Cpu, Onnx};",
        "x(BackendType::default(), BackendType::Cuda)",
    ] {
        assert!(names_a_variant(line), "{line}");
    }
    for line in [
        "BackendType::default()",
        "BackendType::ALL",
        "a: BackendType,",
    ] {
        assert!(!names_a_variant(line), "{line}");
    }
}
