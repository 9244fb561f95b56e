//! The usage of each caller, kept over restarts.

use std::{fs, path::Path};

use embedgate_test_support::{Gateway, client, config_file, embedgate, run, tiny_bge_m3};
use serde_json::{Value, json};

/// Two callers, and a folder where their usage is kept.
fn config(state: &Path, more: &str) -> String {
    let path = tiny_bge_m3();
    format!(
        "[server]\nstate_dir = {state:?}\n{more}\n[auth]\nkeys = [{{ key = \"key-of-ragflow\", name = \"ragflow\" }}, \
         {{ key = \"key-of-other\", name = \"a, b\" }}]\n[models.m]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n"
    )
}

async fn ask(gateway: &Gateway, key: &str, body: &Value) -> u16 {
    let request = client().post(format!("{}/v1/embeddings", gateway.url));
    let response = request.bearer_auth(key).json(body).send().await.unwrap();
    response.status().as_u16()
}

fn usage(config: &Path, arguments: &[&str]) -> String {
    let mut command = embedgate();
    command
        .arg("--config")
        .arg(config)
        .arg("usage")
        .args(arguments);
    let (code, out, said) = run(&mut command);
    assert_eq!(code, Some(0), "{said}");
    out
}

#[tokio::test]
async fn the_usage_of_callers_is_kept_over_restarts_and_written_as_csv_and_json() {
    let state = tempfile::tempdir().unwrap();
    let config = config(state.path(), "");
    let file = config_file(&config);
    assert_eq!(usage(file.path(), &["--format", "json"]), "[]\n");
    for _ in 0..2 {
        let gateway = Gateway::start(&config);
        let two = json!({ "model": "m", "input": ["one", "two"] });
        assert_eq!(ask(&gateway, "key-of-ragflow", &two).await, 200);
        assert_eq!(ask(&gateway, "key-of-ragflow", &two).await, 200);
        let long = json!({ "model": "m", "input": "word ".repeat(9000) });
        assert_eq!(ask(&gateway, "key-of-other", &long).await, 200);
        let wrong = json!({ "model": "m", "input": [] });
        assert_eq!(ask(&gateway, "key-of-other", &wrong).await, 400);
        assert_eq!(ask(&gateway, "no-such-key", &two).await, 401);
        // Nobody used anything by asking.
        gateway.get("/v1/models").await;
        drop(gateway.stop());
    }
    let rows: Value = serde_json::from_str(&usage(file.path(), &["--format", "json"])).unwrap();
    let row = |caller: &str, model: &str| {
        let is_it = |row: &&Value| row["caller"] == caller && row["model"] == model;
        let row = rows.as_array().unwrap().iter().find(is_it).unwrap();
        ["requests", "refused", "inputs", "cached", "truncated"]
            .map(|name| row[name].as_u64().unwrap())
    };
    assert_eq!(row("ragflow", "m"), [4, 0, 8, 4, 0]);
    assert_eq!(row("a, b", "m"), [2, 0, 2, 0, 2]);
    assert_eq!(row("a, b", ""), [2, 2, 0, 0, 0]);
    assert_eq!(row("", ""), [2, 2, 0, 0, 0]);
    assert_eq!(rows.as_array().unwrap().len(), 4);

    let csv = usage(file.path(), &["--caller", "a, b"]);
    let lines: Vec<&str> = csv.lines().collect();
    let names = "day,caller,model,requests,refused,inputs,cached,tokens,truncated";
    assert_eq!(lines[0], names);
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[2].contains(",\"a, b\",m,2,0,2,0,"), "{csv}");
    assert_eq!(
        usage(file.path(), &["--to", "2020-01-01"]).lines().count(),
        1
    );
    let mut command = embedgate();
    let (code, _, said) = run(command.args(["usage", "--from", "yesterday"]));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("write it as 2026-11-30"), "{said}");
}

#[tokio::test]
async fn usage_is_not_kept_where_that_is_not_wanted() {
    let state = tempfile::tempdir().unwrap();
    let config = config(state.path(), "[usage]\nenabled = false");
    let gateway = Gateway::start(&config);
    let one = json!({ "model": "m", "input": "one" });
    assert_eq!(ask(&gateway, "key-of-ragflow", &one).await, 200);
    drop(gateway.stop());
    assert!(!state.path().join("usage").exists());
    let file = config_file(&config);
    let mut command = embedgate();
    let (code, _, said) = run(command.arg("--config").arg(file.path()).arg("usage"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("usage.enabled is false"), "{said}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_costs_no_request() {
    let state = tempfile::tempdir().unwrap();
    // A file in the place of the folder.
    fs::write(state.path().join("usage"), "").unwrap();
    let gateway = Gateway::start(&config(state.path(), ""));
    let one = json!({ "model": "m", "input": "one" });
    assert_eq!(ask(&gateway, "key-of-ragflow", &one).await, 200);
    let log = gateway.stop();
    assert!(log.contains("usage of callers cannot be written"), "{log}");
}
