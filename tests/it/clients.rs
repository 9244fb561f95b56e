//! Real client libraries against the real program, and the examples for them. `scripts/test` installs them.

use std::process::Command;

use crate::support::{Gateway, converted, fixtures, minilm, root, run, tiny_bge_m3};

/// The demo's two models, and a tiny one each for bge-m3 and its reranker.
fn gateway() -> Gateway {
    let (model, file) = (minilm(), converted(&minilm()));
    let (m3, reranker) = (tiny_bge_m3(), fixtures().join("tiny-xlmr-reranker"));
    Gateway::start(&format!(
        "default_model = \"all-MiniLM-L6-v2\"\n[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n\
         [models.all-MiniLM-L6-v2]\npath = {model:?}\nprompts = {{ query = \"query: \", document = \"passage: \" }}\n\
         [models.all-MiniLM-L6-v2-onnx]\npath = {model:?}\nbackend = {{ type = \"onnx\", file = {file:?} }}\n\
         [models.bge-m3-local]\npath = {m3:?}\n[models.bge-reranker-v2-m3]\npath = {reranker:?}\n"
    ))
}

/// Runs a script with the client libraries against a gateway of its own, and returns what it printed.
fn output(set: &str, script: &str) -> String {
    let installed = root().join(".embedgate/clients");
    assert!(
        installed.join(".complete").exists(),
        "the client libraries are not installed: run scripts/test"
    );
    let gateway = gateway();
    let script = root().join(script);
    let mut command = if set == "node" {
        // Node looks for packages beside the script.
        let copy = installed.join("node").join(script.file_name().unwrap());
        std::fs::copy(&script, &copy).unwrap();
        let mut command = Command::new("node");
        command.arg(copy);
        command
    } else {
        let mut command = Command::new(installed.join(set).join("bin/python"));
        command.arg(script);
        command
    };
    command
        .arg(&gateway.url)
        // What the libraries would fetch or send elsewhere.
        .env("TIKTOKEN_CACHE_DIR", installed.join("tiktoken"))
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("HAYSTACK_TELEMETRY_ENABLED", "False");
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(0), "{out}{errors}");
    out
}

/// A script of `tests/clients` that says itself what is wrong.
fn passes(set: &str, script: &str) {
    assert_eq!(output(set, &format!("tests/clients/{script}")), "ok\n");
}

#[test]
fn openai_for_python_works() {
    passes("python", "openai_python.py");
}

#[test]
fn the_last_openai_for_python_works() {
    // The version before, which litellm needs, and many others still have.
    passes("litellm", "openai_python.py");
}

#[test]
fn openai_for_node_works() {
    passes("node", "openai_node.mjs");
}

#[test]
fn langchain_works() {
    passes("python", "langchain_python.py");
}

#[test]
fn llama_index_works() {
    passes("python", "llama_index_python.py");
}

#[test]
fn haystack_works() {
    passes("python", "haystack_python.py");
}

#[test]
fn litellm_works() {
    passes("litellm", "litellm_python.py");
}

#[test]
fn cohere_works() {
    passes("python", "cohere_python.py");
}

#[test]
fn huggingface_hub_works() {
    passes("python", "huggingface_hub_python.py");
}

#[test]
fn ollama_works() {
    passes("python", "ollama_python.py");
}

#[test]
fn the_example_for_python_works() {
    let out = output("python", "examples/openai_client.py");
    assert!(out.starts_with("384 dimensions, "), "{out}");
}
