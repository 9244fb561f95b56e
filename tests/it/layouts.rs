//! Tiny models in the layouts of the hub, against what sentence-transformers makes of the same folders.

use std::{fmt::Write as _, io::Write as _};

use embedgate_test_support::{
    Gateway, Reference, embedgate, fixtures, ids, max_difference, numbers, run, texts,
};
use serde_json::json;

/// f32 on another library sums in another order.
const DIFFERENCE: f32 = 1e-4;

/// The folders, by what is particular of them.
const NAMES: &[&str] = &[
    "distilbert",
    "embeddinggemma",
    "jina3",
    "labse",
    "model2vec",
    "modernbert",
    "mpnet",
    "nomic",
    "normalize-middle",
    "pooling-all",
    "pooling-list",
    "qwen3-embedding",
    "router-dense",
    "sentence-t5",
    "static",
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

/// Pairs are texts that follow each other; of the last four, two have an empty text, and two one that is longer than the model takes.
#[tokio::test]
async fn language_models_score_pairs_as_their_references_do() {
    let path = |name: &str| fixtures().join("rerankers").join(name);
    let gateway = Gateway::start(&format!(
        "[auth]\nmode = \"none\"\n[models.qwen3]\npath = {:?}\nclassifier_from_token = [\"no\", \"yes\"]\nbackend = {{ type = \
         \"candle\" }}\n[models.template]\npath = {:?}\n",
        path("qwen3"),
        path("template"),
    ));
    let texts = texts();
    let long = texts[..30].join(" ");
    for name in ["qwen3", "template"] {
        let reference = Reference::open(&format!("rerankers/{name}/expected.safetensors"));
        let expected = reference.floats("scores");
        let n = expected.len();
        assert_eq!(n, 40, "{name}");
        for (i, expected) in expected.iter().enumerate() {
            let (query, document) = match n - i {
                1 | 2 => (&*texts[i], &*long),
                3 => ("", &*texts[i + 1]),
                4 => (&*texts[i], ""),
                _ => (&*texts[i], &*texts[i + 1]),
            };
            let body =
                json!({"model": name, "query": query, "texts": [document], "raw_scores": true});
            let answer = gateway.ok("/rerank", &body).await;
            let score = answer[0]["score"].as_f64().unwrap();
            let far = (score - f64::from(*expected)).abs();
            assert!(
                far < f64::from(DIFFERENCE),
                "{name}, pair {i}: {score}, expected {expected}"
            );
        }
    }
}

#[test]
fn a_language_model_that_is_no_reranker_by_its_folder_is_refused_with_the_way_out() {
    let path = fixtures().join("rerankers/qwen3");
    for (more, expected) in [
        ("", "classifier_from_token = [\"no\", \"yes\"]"),
        (
            "classifier_from_token = [\"no\", \"perhaps\"]\n",
            "classifier_from_token names \"perhaps\"",
        ),
        (
            "classifier_from_token = [\"no\", \"yes\"]\nmax_length = 100\n",
            "leaves no room within 100 tokens",
        ),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "[auth]\nmode = \"none\"\n[models.qwen3]\npath = {path:?}\n{more}"
        )
        .unwrap();
        let (code, _, errors) = run(embedgate()
            .arg("--config")
            .arg(file.path())
            .args(["--listen", "127.0.0.1:0"]));
        assert_ne!(code, Some(0), "{errors}");
        assert!(errors.contains(expected), "{more}: {errors}");
    }
}
