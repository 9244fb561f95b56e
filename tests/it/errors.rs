//! Errors in the words of each dialect.

use embedgate_test_support::{Gateway, tiny_config};
use serde_json::json;

#[tokio::test]
async fn errors_come_in_the_words_of_the_routes_dialect() {
    let config = tiny_config("").replace(
        "mode = \"none\"",
        "keys = [\"the-only-key-there-is\"]\nopen_routes = [\"tei\"]",
    );
    let gateway = Gateway::start(&config);
    for (path, member) in [
        ("/v1/embeddings", "/error/message"),
        ("/api/embed", "/error"),
        ("/v2/embed", "/message"),
    ] {
        let answer = gateway
            .ask(path, &json!({"input": "a", "texts": ["a"]}))
            .await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("Bearer")),
            "{path}"
        );
        assert!(
            answer.body.pointer(member).unwrap().is_string(),
            "{path}: {}",
            answer.body
        );
    }
    let cases = [
        ("/embed", json!({"inputs": []}), 400, "Empty", "inputs"),
        ("/embed", json!({"inputs": 5}), 422, "Validation", "inputs"),
        ("/embed", json!({}), 422, "Validation", "inputs is missing"),
        (
            "/embed",
            json!({"inputs": "a", "truncation_direction": "Up"}),
            422,
            "Validation",
            "\"Right\" or \"Left\"",
        ),
        (
            "/embed",
            json!({"inputs": "a", "model": "nix"}),
            404,
            "Validation",
            "nix",
        ),
        (
            "/embed",
            json!({"inputs": [1, 100_000_000]}),
            422,
            "Validation",
            "100000000",
        ),
        (
            "/tokenize",
            json!({"inputs": "a".repeat(2 << 20)}),
            413,
            "Validation",
            "at most 262144 bytes",
        ),
        (
            "/tokenize",
            json!({"inputs": [1, 2]}),
            422,
            "Validation",
            "tokens already",
        ),
        (
            "/decode",
            json!({"ids": "a"}),
            422,
            "Validation",
            "ids must be",
        ),
        (
            "/similarity",
            json!({"inputs": {"source_sentence": "a"}}),
            422,
            "Validation",
            "sentences",
        ),
    ];
    for (path, body, status, kind, part) in cases {
        let answer = gateway.ask(path, &body).await;
        let said = (answer.status, answer.body["error_type"].as_str());
        assert_eq!(said, (status, Some(kind)), "{path}: {}", answer.body);
        assert!(
            answer.body["error"].as_str().unwrap().contains(part),
            "{path}: {}",
            answer.body
        );
    }
    let method = gateway.get("/embed").await;
    assert_eq!(
        (method.status, method.body["error_type"].as_str()),
        (405, Some("Validation"))
    );
}
