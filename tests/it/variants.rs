//! Folders that hold more than one model: routes of a router, and adapters by task, against what sentence-transformers makes of them.

use std::fmt::Write as _;

use embedgate_test_support::{
    Gateway, Reference, embedgate, fixtures, ids, max_difference, numbers, run, texts, tiny_bge_m3,
};
use serde_json::{Value, json};

/// f32 on another library sums in another order.
const DIFFERENCE: f32 = 1e-4;
/// The folders that give dense vectors, with what chooses the other model of each.
const DENSE: [(&str, &str); 2] = [
    ("router-dense", "route = \"query\""),
    ("jina3", "adapter = \"second\""),
];
/// Tokens of the vocabulary of the folder that gives sparse weights.
const VOCABULARY: usize = 300;

/// Of each folder a model that has its other one for queries.
fn gateway() -> Gateway {
    let mut config = "[auth]\nmode = \"none\"\n".to_owned();
    let sparse = ("router-sparse", "route = \"query\"\nload = \"on_demand\"");
    for (name, choice) in DENSE.into_iter().chain([sparse]) {
        let path = fixtures().join("layouts").join(name);
        let backend = "backend = { type = \"candle\" }";
        writeln!(
            config,
            "[models.{name}]\npath = {path:?}\nquery_model = \"{name}-queries\"\n{backend}\n\
             [models.{name}-queries]\npath = {path:?}\n{choice}\n{backend}"
        )
        .unwrap();
    }
    Gateway::start(&config)
}

/// All weights of a sparse answer, zeros included.
fn weights(answer: &Value) -> Vec<f32> {
    let sparse = &answer["data"][0]["sparse_embedding"];
    let mut all = vec![0.0; VOCABULARY];
    let pairs = ids(&sparse["indices"])
        .into_iter()
        .zip(numbers(&sparse["values"]));
    for (at, weight) in pairs {
        all[at] = weight;
    }
    all
}

#[tokio::test]
async fn the_model_for_queries_serves_queries_alone() {
    let gateway = gateway();
    let texts = texts();
    for (name, _) in DENSE {
        let reference = Reference::open(&format!("layouts/{name}/expected.safetensors"));
        let of_queries = reference.floats("query_embeddings");
        let of_documents = reference.floats("embeddings");
        let width = gateway.vectors(name, &json!(["a"])).await[0].len();
        for (i, text) in texts.iter().enumerate().take(19) {
            let row = i * width..(i + 1) * width;
            for (kind, expected) in [
                (json!({"input_type": "query"}), &of_queries),
                (json!({"task": "retrieval.query"}), &of_queries),
                (json!({"input_type": "document"}), &of_documents),
                (json!({}), &of_documents),
            ] {
                let mut body = json!({"model": name, "input": [text]});
                body.as_object_mut()
                    .unwrap()
                    .extend(kind.as_object().unwrap().clone());
                let answer = gateway.embed(&body).await;
                assert_eq!(answer.body["model"], name);
                let far = max_difference(&answer.vectors()[0], &expected[row.clone()]);
                assert!(far < DIFFERENCE, "{name}, text {i} {text:?}, {kind}: {far}");
            }
        }
    }
}

#[tokio::test]
async fn routes_give_sparse_weights_of_their_own() {
    let gateway = gateway();
    let reference = Reference::open("layouts/router-sparse/expected.safetensors");
    let (of_queries, of_documents) = (reference.floats("query_sparse"), reference.floats("sparse"));
    let texts = texts();
    let rows = of_queries
        .chunks(VOCABULARY)
        .zip(of_documents.chunks(VOCABULARY));
    for (i, (text, (query, document))) in texts.iter().zip(rows).enumerate() {
        for (kind, expected) in [("query", query), ("document", document)] {
            let body = json!({
                "model": "router-sparse", "input": [text], "outputs": ["sparse"], "input_type": kind,
            });
            let got = weights(&gateway.ok("/v1/embeddings", &body).await);
            let far = max_difference(&got, expected);
            assert!(far < DIFFERENCE, "{kind}, text {i} {text:?}: {far}");
        }
    }
}

/// The model for queries is not in memory before.
#[tokio::test]
async fn a_query_to_rank_for_goes_to_the_model_for_queries() {
    let gateway = gateway();
    let reference = Reference::open("layouts/router-sparse/expected.safetensors");
    let of_queries = reference.floats("query_sparse");
    let of_documents = reference.floats("sparse");
    let row = |all: &[f32], i: usize| all[i * VOCABULARY..(i + 1) * VOCABULARY].to_vec();
    let texts = texts();
    let (query, documents) = (1, 0..6);
    let body = json!({
        "model": "router-sparse", "query": texts[query], "texts": texts[documents.clone()], "raw_scores": true,
    });
    let answer = gateway.ok("/rerank", &body).await;
    let answer = answer.as_array().unwrap();
    assert_eq!(answer.len(), documents.len());
    let of_query = row(&of_queries, query);
    assert!(of_query.iter().any(|x| *x > 0.0));
    for line in answer {
        let index = usize::try_from(line["index"].as_u64().unwrap()).unwrap();
        let of_document = row(&of_documents, index);
        let pairs = of_query.iter().zip(&of_document);
        let expected: f32 = pairs.map(|(a, b)| a * b).sum();
        let far = line["score"].as_f64().unwrap() - f64::from(expected);
        assert!(far.abs() < 1e-3, "document {index}: {far}");
    }
}

/// Of the model for documents and the one for queries one fits into memory.
#[tokio::test]
async fn models_that_do_not_fit_together_take_turns() {
    let path = tiny_bge_m3();
    let pair = |mib: usize| {
        format!(
            "[auth]\nmode = \"none\"\n[server]\nmax_model_memory = \"{mib}MiB\"\n[models.a]\npath = {path:?}\nload = \"on_demand\"\n\
             query_model = \"b\"\n[models.b]\npath = {path:?}\nload = \"on_demand\"\n"
        )
    };
    let gateway = Gateway::start(&pair(1));
    let body = json!({"model": "a", "input": "text"});
    let refused = gateway.ask("/v1/embeddings", &body).await;
    let message = refused.message();
    let takes = message.split("takes about ").nth(1).expect(message);
    let mib: usize = takes.split("MiB").next().unwrap().parse().unwrap();
    let gateway = Gateway::start(&pair(mib * 3 / 2));
    for kind in ["query", "document", "query", "document"] {
        let body = json!({"model": "a", "input": "text", "input_type": kind});
        let answer = gateway.ask("/v1/embeddings", &body).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.body);
    }
    // A reranking needs both at once, and says at once that they are not there.
    let body = json!({"model": "a", "query": "text", "texts": ["other"]});
    assert_eq!(gateway.ask("/rerank", &body).await.status, 503);
    let log = gateway.log();
    assert!(!log.contains("still answers requests"), "{log}");
}

#[tokio::test]
async fn a_model_for_queries_that_gives_other_vectors_is_refused() {
    let path = |name: &str| fixtures().join("layouts").join(name);
    let gateway = Gateway::start(&format!(
        "[auth]\nmode = \"none\"\n[models.a]\npath = {:?}\nquery_model = \"b\"\nbackend = {{ type = \"candle\" }}\n\
         [models.b]\npath = {:?}\nbackend = {{ type = \"candle\" }}\n",
        path("mpnet"),
        path("router-dense"),
    ));
    let body = |kind| json!({"model": "a", "input": "text", "input_type": kind});
    let document = gateway.ask("/v1/embeddings", &body("document")).await;
    assert_eq!(document.status, 200);
    let query = gateway.ask("/v1/embeddings", &body("query")).await;
    assert_eq!(query.status, 503);
    let message = query.message();
    assert!(
        message.contains("16 numbers") && message.contains("have 32"),
        "{message}"
    );
}

#[test]
fn a_choice_that_there_is_not_is_refused_by_the_names_of_those_there_are() {
    for (name, choice, expected) in [
        ("jina3", "adapter = \"third\"", "there are first, second"),
        ("jina3", "route = \"query\"", "names no Router"),
        ("mpnet", "adapter = \"first\"", "it has no adapters"),
        (
            "router-dense",
            "route = \"passage\"",
            "there are \"document\", \"query\"",
        ),
        (
            "mpnet",
            "query_model = \"other\"",
            "there is no model \"other\"",
        ),
    ] {
        let path = fixtures().join("layouts").join(name);
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = format!("[auth]\nmode = \"none\"\n[models.m]\npath = {path:?}\n{choice}\n");
        std::fs::write(file.path(), config).unwrap();
        let (code, _, errors) = run(embedgate()
            .arg("--config")
            .arg(file.path())
            .args(["--listen", "127.0.0.1:0"]));
        assert_ne!(code, Some(0), "{errors}");
        assert!(errors.contains(expected), "{name}, {choice}: {errors}");
    }
}
