//! Tries the program against its own `OpenAPI` document.

use crate::support::installed;
use embedgate_test_support::{Gateway, embedder_and_reranker, root, run};
use std::process::Command;

/// Requests that are right by the document are taken, others refused; every status and body is as documented, none is a 5xx.
/// `which` chooses routes; returns how often one was asked.
fn does_as_it_says(which: &str) -> usize {
    let gateway = Gateway::start(&embedder_and_reranker());
    let mut command = Command::new(installed("clients/schemathesis/bin/schemathesis"));
    // It keeps what it found where it runs.
    let folder = tempfile::tempdir().unwrap();
    command
        .current_dir(folder.path())
        .env("PYTHONPATH", root().join("tests/clients"))
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .args(["run", "--checks", "all", "--max-examples", "180"])
        .args(["--seed", "1", "--no-color", which, TEI])
        .arg(format!("{}/openapi.json", gateway.url));
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(0), "{out}{errors}");
    let after = out.split("Test cases:").nth(1);
    let n = after.and_then(|rest| rest.split_whitespace().next());
    let n = n.and_then(|n| n.parse().ok());
    n.unwrap_or_else(|| panic!("{out}"))
}

/// The routes of text-embeddings-inference, about half of all. They are tried beside the rest: one process of schemathesis keeps
/// one core busy.
const TEI: &str = "^/(embed|embed_all|embed_sparse|similarity|tokenize|decode|info|rerank)$";

#[test]
fn the_routes_of_tei_do_as_the_document_says() {
    let n = does_as_it_says("--include-path-regex");
    assert!(n >= 2_000, "{n} cases");
}

#[test]
fn all_other_routes_do_as_the_document_says() {
    let n = does_as_it_says("--exclude-path-regex");
    assert!(n >= 2_000, "{n} cases");
}
