//! The dialect of Ollama.

use embedgate_test_support::{Gateway, SAME, max_difference, numbers, tiny_config};
use serde_json::json;

#[tokio::test]
async fn ollama_is_spoken() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway.vectors("tiny", &json!(["a", "b"])).await;
    let answer = gateway
        .ok(
            "/api/embed",
            &json!({"model": "tiny:latest", "input": ["a", "b"]}),
        )
        .await;
    assert_eq!(answer["model"], "tiny:latest", "as it was asked for");
    assert!(answer["prompt_eval_count"].as_u64().unwrap() >= 6);
    assert!(answer["total_duration"].as_u64().unwrap() > 0 && answer["load_duration"] == 0);
    for (i, expected) in expected.iter().enumerate() {
        assert!(max_difference(&numbers(&answer["embeddings"][i]), expected) < SAME);
    }
    let older = gateway
        .ok("/api/embeddings", &json!({"model": "tiny", "prompt": "b"}))
        .await;
    assert!(max_difference(&numbers(&older["embedding"]), &expected[1]) < SAME);
    let tags = gateway.get("/api/tags").await.body;
    let names: Vec<(&str, &str)> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| {
            (
                model["name"].as_str().unwrap(),
                model["details"]["parent_model"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(names, [("tiny:latest", ""), ("BAAI/tiny:latest", "tiny")]);
    for (name, _) in names {
        let body = json!({"model": name, "input": "a"});
        assert_eq!(gateway.ok("/api/embed", &body).await["model"], name);
        let pulled = gateway.ok("/api/pull", &json!({"model": name})).await;
        assert_eq!(pulled, json!({"status": "success"}));
    }
    let unknown = gateway.ask("/api/pull", &json!({"model": "nix"})).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.body["error"].is_string(), "{}", unknown.body);
    let running = gateway.get("/api/ps").await.body;
    assert_eq!(running["models"][0]["model"], "tiny:latest");
    assert!(running["models"][0]["expires_at"].is_string());
    // A path that nobody knows, in the dialect's words.
    let nowhere = gateway.get("/api/nowhere").await;
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.body["error"].is_string(), "{}", nowhere.body);
    let shown = gateway
        .ok("/api/show", &json!({"model": "BAAI/tiny"}))
        .await;
    assert_eq!(
        (
            &shown["capabilities"],
            &shown["model_info"]["bert.embedding_length"]
        ),
        (&json!(["embedding"]), &json!(64))
    );
    let missing = gateway
        .ask("/api/embed", &json!({"model": "nix", "input": "a"}))
        .await;
    assert_eq!(missing.status, 404);
    assert!(
        missing.body["error"].as_str().unwrap().contains("nix"),
        "{}",
        missing.body
    );
}
