//! Tests of the settings that make a model folder a cross-encoder's.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use embedgate_core::{FolderError, ModelFolder};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    fixtures.join(name)
}

/// Opens a folder of these files and the `config.json` of the tiny BERT reranker, with one field set.
fn open(field: &str, value: Value, files: &[(&str, Value)]) -> Result<ModelFolder, FolderError> {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(fixture("tiny-bert-reranker").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config[field] = value;
    for (name, file) in [("config.json", config)].iter().chain(files) {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file.to_string()).unwrap();
    }
    ModelFolder::open(folder.path())
}

#[test]
fn the_fixtures_are_what_their_names_say() {
    for (name, expected) in [
        ("tiny-bert-reranker", true),
        ("tiny-xlmr-reranker", true),
        ("tiny-bge-m3", false),
    ] {
        let folder = ModelFolder::open(&fixture(name)).unwrap();
        assert_eq!(folder.is_cross_encoder, expected, "{name}");
    }
}

#[test]
fn more_labels_than_one_are_refused_and_the_file_is_named() {
    let labels = json!({"0": "contradiction", "1": "entailment", "2": "neutral"});
    let error = open("id2label", labels, &[]).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
    assert!(error.contains("3 labels"), "{error}");
}

#[test]
fn modules_make_an_embedder_only_where_they_pool() {
    let module = |path: &str, kind: &str| json!({"path": path, "type": format!("sentence_transformers.models.{kind}")});
    let encoder = module("", "Transformer");
    let alone = ("modules.json", json!([encoder]));
    assert!(
        open("num_labels", json!(1), &[alone])
            .unwrap()
            .is_cross_encoder
    );
    let pooled = (
        "modules.json",
        json!([encoder, module("1_Pooling", "Pooling")]),
    );
    let pooling = ("1_Pooling/config.json", json!({"pooling_mode": "mean"}));
    let embedder = open("num_labels", json!(1), &[pooled, pooling]).unwrap();
    assert!(!embedder.is_cross_encoder);
}
