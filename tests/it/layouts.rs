//! Tiny models in the layouts of the hub, against what sentence-transformers makes of the same folders.

use std::fmt::Write;

use embedgate_test_support::{Gateway, Reference, fixtures, ids, max_difference, numbers, texts};
use serde_json::json;

/// f32 on another library sums in another order.
const DIFFERENCE: f32 = 1e-4;

/// The folders, by what is particular of them.
const NAMES: &[&str] = &[
    "distilbert",
    "embeddinggemma",
    "labse",
    "modernbert",
    "mpnet",
    "nomic",
    "normalize-middle",
    "pooling-all",
    "pooling-list",
    "qwen3-embedding",
    "sentence-t5",
    "subfolder-transformer",
];

/// A configuration of all of them.
fn config() -> String {
    let mut config = "[auth]\nmode = \"none\"\n".to_owned();
    for name in NAMES {
        let path = fixtures().join("layouts").join(name);
        let path = path.display();
        writeln!(
            config,
            "[models.{name}]\npath = \"{path}\"\nbackend = {{ type = \"candle\" }}"
        )
        .unwrap();
    }
    config
}

#[tokio::test]
async fn vectors_are_those_of_sentence_transformers() {
    let gateway = Gateway::start(&config());
    let texts = texts();
    for name in NAMES {
        let reference = Reference::open(&format!("layouts/{name}/expected.safetensors"));
        let expected = reference.floats("embeddings");
        let whole = json!(&texts[..2]);
        let width = gateway.vectors(name, &whole).await[0].len();
        let expected: Vec<&[f32]> = expected.chunks(width).collect();
        assert!(expected.len() >= 19, "{name}");
        for (i, (text, expected)) in texts.iter().zip(expected).enumerate() {
            let got = gateway.vectors(name, &json!([text])).await;
            let far = max_difference(&got[0], expected);
            assert!(far < DIFFERENCE, "{name}, text {i} {text:?}: {far}");
        }
    }
}

#[tokio::test]
async fn prompts_of_the_folders_are_those_of_sentence_transformers() {
    let gateway = Gateway::start(&config());
    let texts = texts();
    for name in ["qwen3-embedding", "embeddinggemma"] {
        let reference = Reference::open(&format!("layouts/{name}/expected.safetensors"));
        let expected = reference.floats("query_embeddings");
        for (i, text) in texts.iter().enumerate().take(19) {
            let body = json!({"model": name, "input": [text], "prompt_name": "query"});
            let got = gateway.embed(&body).await.vectors();
            let expected = &expected[i * got[0].len()..(i + 1) * got[0].len()];
            let far = max_difference(&got[0], expected);
            assert!(far < DIFFERENCE, "{name}, text {i} {text:?}: {far}");
        }
    }
}

#[tokio::test]
async fn weights_of_splade_are_those_of_sentence_transformers() {
    let path = fixtures().join("layouts/splade");
    let gateway = Gateway::start(&format!(
        "[auth]\nmode = \"none\"\n[models.splade]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n"
    ));
    let reference = Reference::open("layouts/splade/expected.safetensors");
    let expected = reference.floats("sparse");
    let texts = texts();
    let width = 300;
    for (i, (text, expected)) in texts.iter().zip(expected.chunks(width)).enumerate() {
        let body = json!({"model": "splade", "input": [text], "outputs": ["sparse"]});
        let answer = gateway.ok("/v1/embeddings", &body).await;
        let sparse = &answer["data"][0]["sparse_embedding"];
        let mut got = vec![0.0; width];
        for (at, weight) in ids(&sparse["indices"])
            .into_iter()
            .zip(numbers(&sparse["values"]))
        {
            got[at] = weight;
        }
        let far = max_difference(&got, expected);
        assert!(far < DIFFERENCE, "text {i} {text:?}: {far}");
        assert!(expected.iter().any(|x| *x > 0.0), "text {i}");
    }
    let dense = json!({"model": "splade", "input": ["a"]});
    let refused = gateway.ask("/v1/embeddings", &dense).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.message().contains("gives sparse, not dense"),
        "{}",
        refused.message()
    );
}
