//! Real client libraries against the real program, and the examples for them. `scripts/test` installs them.

use std::process::Command;

use crate::support::{converted, installed, minilm};
use embedgate_test_support::{Gateway, fixtures, root, run, tiny_bge_m3};

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
    let complete = installed("clients/.complete");
    let installed = complete.parent().unwrap();
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

/// An example that ends with texts and their scores, best first: the text nearest in meaning is the best.
fn finds(set: &str, example: &str) {
    let out = output(set, &format!("examples/{example}"));
    let scored = |line: &str| {
        let (score, text) = line.split_once("  ")?;
        Some((score.parse::<f32>().ok()?, text.to_owned()))
    };
    let mut lines: Vec<(f32, String)> = out.lines().filter_map(scored).collect();
    // Some begin with the question itself.
    lines.retain(|(_, text)| text != "How do I reset my password?");
    assert!(lines.len() >= 2, "{out}");
    assert_eq!(lines[0].1, "Forgot my login, what now?", "{out}");
    assert!(
        lines[0].0 > 0.5 && lines[1..].iter().all(|line| line.0 < 0.2),
        "{out}"
    );
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
fn the_example_for_openai_for_python_works() {
    finds("python", "openai_client.py");
}

#[test]
fn the_example_for_openai_for_node_works() {
    finds("node", "openai_client.mjs");
}

#[test]
fn the_example_for_langchain_works() {
    finds("python", "langchain_client.py");
}

#[test]
fn the_example_for_llama_index_works() {
    finds("python", "llama_index_client.py");
}

#[test]
fn the_example_for_haystack_works() {
    finds("python", "haystack_client.py");
}

#[test]
fn the_example_for_litellm_works() {
    finds("litellm", "litellm_client.py");
}

#[test]
fn the_example_for_cohere_works() {
    finds("python", "cohere_client.py");
}

#[test]
fn the_example_for_huggingface_hub_works() {
    finds("python", "huggingface_hub_client.py");
}

#[test]
fn the_example_for_ollama_works() {
    finds("python", "ollama_client.py");
}

#[test]
fn the_example_for_all_of_bge_m3_gets_the_score_of_reranking() {
    let out = output("python", "examples/bge_m3_hybrid.py");
    let rows: Vec<Vec<f32>> = out
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(5))
        .map(|columns| columns.map(|x| x.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.len(), 3, "{out}");
    for row in rows {
        let [dense, sparse, colbert, mean, reranked] = row[..] else {
            panic!("{out}");
        };
        assert!(dense > 0.0 && sparse > 0.0 && colbert > 0.0, "{out}");
        assert!((mean - reranked).abs() < 1e-3, "{out}");
    }
}
