//! Real client libraries against the real program. `scripts/test` installs them.

use std::process::Command;

use crate::support::{Gateway, converted, minilm, root, run};

/// The demo's two models.
fn gateway() -> Gateway {
    let (model, file) = (minilm(), converted(&minilm()));
    Gateway::start(&format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.all-MiniLM-L6-v2]\npath = {model:?}\n\
         [models.all-MiniLM-L6-v2-onnx]\npath = {model:?}\nbackend = {{ type = \"onnx\", file = {file:?} }}\n"
    ))
}

/// Runs a client's script to its end.
fn passes(command: &mut Command) {
    let installed = root().join(".embedgate/clients/.complete");
    assert!(
        installed.exists(),
        "the client libraries are not installed: run scripts/test"
    );
    let (code, out, errors) = run(command);
    assert_eq!((code, out.as_str()), (Some(0), "ok\n"), "{errors}");
}

#[test]
fn openai_for_python_works() {
    let gateway = gateway();
    let mut command = Command::new(root().join(".embedgate/clients/python/bin/python"));
    passes(
        command
            .arg(root().join("tests/clients/openai_python.py"))
            .arg(&gateway.url),
    );
}

#[test]
fn openai_for_node_works() {
    let gateway = gateway();
    let mut command = Command::new("node");
    command.env("NODE_PACKAGES", root().join(".embedgate/clients/node"));
    passes(
        command
            .arg(root().join("tests/clients/openai_node.mjs"))
            .arg(&gateway.url),
    );
}

#[test]
fn the_example_for_python_works() {
    let gateway = gateway();
    let mut command = Command::new(root().join(".embedgate/clients/python/bin/python"));
    command
        .arg(root().join("examples/openai_client.py"))
        .arg(&gateway.url);
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.starts_with("384 dimensions, "), "{out}");
}
