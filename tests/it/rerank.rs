//! Reranking by a model that embeds.

use embedgate_test_support::{Gateway, fixtures, ids, numbers, texts, tiny_config};
use serde_json::{Value, json};

#[tokio::test]
async fn a_model_that_gives_all_three_reranks_as_flag_embedding_does() {
    let file = std::fs::read_to_string(fixtures().join("tiny_rerank_reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&file).unwrap();
    let texts = texts();
    let (queries, documents) = (ids(&reference["queries"]), ids(&reference["documents"]));
    let given: Vec<&String> = documents.iter().map(|i| &texts[*i]).collect();
    for (name, weights) in [
        ("default", ""),
        (
            "uneven",
            "rerank = { dense = 0.4, sparse = 0.2, colbert = 0.4 }",
        ),
    ] {
        let gateway = Gateway::start(&tiny_config(weights));
        let scores = numbers(&reference["scores"][name]);
        assert_eq!(scores.len(), queries.len() * documents.len());
        for (i, expected) in queries.iter().zip(scores.chunks(documents.len())) {
            let body = json!({"query": texts[*i], "texts": given, "raw_scores": true});
            let answer = gateway.ok("/rerank", &body).await;
            let lines = answer.as_array().unwrap();
            assert_eq!(lines.len(), documents.len());
            let mut last = f64::INFINITY;
            for line in lines {
                let (index, score) = (
                    ids(&json!([line["index"]]))[0],
                    line["score"].as_f64().unwrap(),
                );
                let far = (score - f64::from(expected[index])).abs();
                assert!(
                    far < 1e-4 * score.abs().max(1.0),
                    "{name} {i} {index}: {score} {far}"
                );
                assert!(score <= last, "best first");
                last = score;
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named_in_the_words_of_its_dialect() {
    let gateway = Gateway::start(&tiny_config(""));
    let cases = [
        (
            "/v1/rerank",
            json!({"query": "a"}),
            400,
            "/error/message",
            "documents is missing",
        ),
        (
            "/v1/rerank",
            json!({"documents": ["a"]}),
            400,
            "/error/message",
            "query is missing",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": [5]}),
            400,
            "/error/message",
            "a list of strings",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b", 5]}),
            400,
            "/error/message",
            "documents[1]: is a token id",
        ),
        (
            "/rerank",
            json!({"query": "a", "texts": vec!["b"; 2049]}),
            422,
            "/error",
            "texts must hold at most 2048 entries, got 2049",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["a"], "return_documents": "yes"}),
            400,
            "/error/message",
            "true or false",
        ),
        (
            "/v1/rerank",
            json!({"model": "nix", "query": "a", "documents": ["a"]}),
            404,
            "/error/message",
            "nix",
        ),
        (
            "/v2/rerank",
            json!({"query": "a", "documents": []}),
            400,
            "/message",
            "at least one",
        ),
        (
            "/rerank",
            json!({"query": "a", "texts": []}),
            400,
            "/error",
            "texts must hold at least one",
        ),
        (
            "/rerank",
            json!({"query": 5, "texts": ["a"]}),
            422,
            "/error",
            "query must be",
        ),
        (
            "/rerank",
            json!({"model": "tiny", "query": "a", "texts": ["b".to_owned(), "word ".repeat(9000)], "truncate": false}),
            422,
            "/error",
            "documents[1]",
        ),
        (
            "/v1/rerank",
            json!({"query": "a", "documents": ["b"], "long_documents": "chunks"}),
            400,
            "/error/message",
            "long_documents must be \"truncate\" or \"windows\", got \"chunks\"",
        ),
    ];
    for (path, body, status, at, part) in cases {
        let answer = gateway.ask(path, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(
            answer
                .body
                .pointer(at)
                .unwrap()
                .as_str()
                .unwrap()
                .contains(part),
            "{path}: {}",
            answer.body
        );
    }
}
