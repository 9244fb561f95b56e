//! The `OpenAPI` document: the page that shows it, and whether the program does as it says.

use std::process::Command;

use crate::support::{Gateway, fixtures, root, run};

fn gateway() -> Gateway {
    let (model, reranker) = (
        fixtures().join("tiny-bge-m3"),
        fixtures().join("tiny-xlmr-reranker"),
    );
    Gateway::start(&format!(
        "default_model = \"bge-m3-local\"\n[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n\
         [models.bge-m3-local]\npath = {model:?}\n[models.reranker]\npath = {reranker:?}\n"
    ))
}

#[tokio::test]
async fn the_document_is_3_1_and_its_page_has_all_its_parts() {
    let gateway = gateway();
    let document = gateway.get("/openapi.json").await;
    assert_eq!(
        (document.status, &document.body["openapi"]),
        (200, &"3.1.0".into())
    );
    let page = reqwest::get(format!("{}/docs/", gateway.url))
        .await
        .unwrap();
    assert_eq!(page.url().path(), "/docs/index.html");
    let page = page.text().await.unwrap();
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|word| word.ends_with(".js") || word.ends_with(".css"))
        .collect();
    assert!(parts.len() >= 3, "{page}");
    for part in parts {
        let part = part.trim_start_matches("./");
        let answer = reqwest::get(format!("{}/docs/{part}", gateway.url))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{part}");
    }
    assert_eq!(gateway.get("/docs/nothing.js").await.status, 404);
}

/// What is right by the document is taken, what is wrong refused, every status and body is as documented, nothing is a 5xx.
#[test]
fn the_program_does_as_the_document_says() {
    let gateway = gateway();
    let installed = root().join(".embedgate/clients");
    assert!(
        installed.join(".complete").exists(),
        "schemathesis is not installed: run scripts/test"
    );
    let mut command = Command::new(installed.join("schemathesis/bin/schemathesis"));
    // It keeps what it found where it runs.
    let folder = tempfile::tempdir().unwrap();
    command
        .current_dir(folder.path())
        .env("PYTHONPATH", root().join("tests/clients"))
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .args([
            "run",
            "--checks",
            "all",
            "--max-examples",
            "180",
            "--seed",
            "1",
            "--no-color",
        ])
        .arg(format!("{}/openapi.json", gateway.url));
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(0), "{out}{errors}");
    let n = out
        .split("Test cases:")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let n: usize = n
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{out}"));
    assert!(n >= 5_000, "{n} cases");
}
