//! The contract of `/v1/embeddings` and its neighbours, over HTTP against the real program.

use base64_simd::STANDARD;
use serde_json::json;

use embedgate_test_support::{Gateway, SAME, max_difference, texts, tiny_config};

#[tokio::test]
async fn the_answer_has_exactly_the_fields_of_openai() {
    let gateway = Gateway::start(&tiny_config(""));
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": "hello world"}))
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/json"))
    );
    let mut body = answer.body.clone();
    let vector = body["data"][0]["embedding"].take();
    assert_eq!(vector.as_array().unwrap().len(), 64);
    insta::assert_json_snapshot!(body, @r#"
    {
      "data": [
        {
          "embedding": null,
          "index": 0,
          "object": "embedding"
        }
      ],
      "model": "tiny",
      "object": "list",
      "usage": {
        "prompt_tokens": 7,
        "total_tokens": 7
      }
    }
    "#);
}

#[tokio::test]
async fn vectors_are_of_length_one_in_order_and_the_same_however_they_are_asked_for() {
    let gateway = Gateway::start(&tiny_config("[cache]\nmax_size = \"0B\""));
    let texts: Vec<String> = texts().into_iter().take(60).collect();
    let together = gateway.vectors("tiny", &json!(texts)).await;
    for (text, vector) in texts.iter().zip(&together) {
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        let alone = gateway.vectors("tiny", &json!(text)).await;
        assert!(max_difference(&alone[0], vector) < SAME, "{text:?}");
    }
    let mut reversed = texts.clone();
    reversed.reverse();
    let mut turned = gateway.vectors("tiny", &json!(reversed)).await;
    turned.reverse();
    for (a, b) in together.iter().zip(&turned) {
        assert!(max_difference(a, b) < SAME);
    }
}

#[tokio::test]
async fn a_cached_answer_is_bit_for_bit_the_computed_one() {
    let gateway = Gateway::start(&tiny_config(""));
    let first = gateway
        .embed(&json!({"model": "tiny", "input": ["a", "b", "a"]}))
        .await;
    let again = gateway
        .embed(&json!({"model": "tiny", "input": ["a", "b", "a"]}))
        .await;
    assert_eq!(first.body, again.body);
    let mixed = gateway
        .embed(&json!({"model": "tiny", "input": ["new", "b", "a"]}))
        .await;
    assert_eq!(
        mixed.body["data"][2]["embedding"],
        first.body["data"][0]["embedding"]
    );
    assert_eq!(
        mixed.body["data"][1]["embedding"],
        first.body["data"][1]["embedding"]
    );
    let log = gateway.stop();
    assert!(
        log.contains("\"n_cached\":3") && log.contains("\"n_cached\":2"),
        "{log}"
    );
}

#[tokio::test]
async fn base64_holds_the_same_bits_as_floats() {
    let gateway = Gateway::start(&tiny_config(""));
    let floats = gateway.vectors("tiny", &json!("bits")).await;
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": "bits", "encoding_format": "base64"}))
        .await;
    let bytes = STANDARD
        .decode_to_vec(answer.body["data"][0]["embedding"].as_str().unwrap())
        .unwrap();
    let decoded: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    assert_eq!(decoded, floats[0]);
}

#[tokio::test]
async fn dimensions_cut_and_renormalize() {
    let gateway = Gateway::start(&tiny_config(""));
    let whole = gateway.vectors("tiny", &json!("cut me")).await.remove(0);
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": "cut me", "dimensions": 16}))
        .await;
    let cut = answer.vectors().remove(0);
    let length = whole[..16].iter().map(|x| x * x).sum::<f32>().sqrt();
    let expected: Vec<f32> = whole[..16].iter().map(|x| x / length).collect();
    assert!(max_difference(&cut, &expected) < 1e-6);
    let above = gateway
        .embed(&json!({"model": "tiny", "input": "cut me", "dimensions": 65}))
        .await;
    assert_eq!(
        (above.status, above.message()),
        (
            400,
            "dimensions must be at most 64 for model \"tiny\", got 65"
        )
    );
    assert_eq!(above.body["error"]["param"], "dimensions");
}

#[tokio::test]
async fn the_config_can_refuse_to_cut_dimensions_and_texts() {
    let more = "dimensions = \"refuse\"\ntruncate = false\nmax_length = 16";
    let gateway = Gateway::start(&tiny_config(more));
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": "a", "dimensions": 16}))
        .await;
    assert_eq!(
        (answer.status, answer.body["error"]["param"].as_str()),
        (400, Some("dimensions"))
    );
    let long = "word ".repeat(100);
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": ["short", long]}))
        .await;
    assert_eq!(answer.status, 400);
    assert!(
        answer.message().starts_with("input[1]: input has "),
        "{}",
        answer.message()
    );
    assert_eq!(answer.body["error"]["code"], "context_length_exceeded");
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": long, "truncate": true}))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn usage_is_exact_and_the_same_on_hits() {
    let gateway = Gateway::start(&tiny_config(""));
    let one = gateway
        .embed(&json!({"model": "tiny", "input": "alpha"}))
        .await
        .body["usage"]["total_tokens"]
        .as_u64();
    let other = gateway
        .embed(&json!({"model": "tiny", "input": ""}))
        .await
        .body["usage"]["total_tokens"]
        .as_u64();
    assert_eq!(other, Some(2), "an empty text is its two special tokens");
    let both = gateway
        .embed(&json!({"model": "tiny", "input": ["alpha", "", "alpha"]}))
        .await;
    assert_eq!(
        both.body["usage"]["prompt_tokens"].as_u64(),
        Some(2 * one.unwrap() + 2)
    );
}

#[tokio::test]
async fn the_most_inputs_of_one_request_pass_and_one_more_is_refused() {
    let gateway = Gateway::start(&tiny_config(""));
    let texts: Vec<String> = (0..2048).map(|i| format!("text {i}")).collect();
    let vectors = gateway.vectors("tiny", &json!(texts)).await;
    assert_eq!(vectors.len(), 2048);
    let alone = gateway.vectors("tiny", &json!("text 1234")).await;
    assert!(max_difference(&alone[0], &vectors[1234]) < SAME);
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": vec!["x"; 2049]}))
        .await;
    assert_eq!(
        (answer.status, answer.body["error"]["param"].as_str()),
        (400, Some("input"))
    );
    assert!(
        answer.message().contains("2048") && answer.message().contains("2049"),
        "{}",
        answer.message()
    );
}

#[tokio::test]
async fn sixteen_clients_at_once_get_their_own_vectors() {
    let gateway = std::sync::Arc::new(Gateway::start(&tiny_config("[cache]\nmax_size = \"0B\"")));
    let texts: Vec<String> = (0..16)
        .map(|i| format!("client number {i} {}", "and more ".repeat(i)))
        .collect();
    let expected = gateway.vectors("tiny", &json!(texts)).await;
    let clients = texts.into_iter().map(|text| {
        let gateway = std::sync::Arc::clone(&gateway);
        tokio::spawn(async move {
            let mut all = Vec::new();
            for _ in 0..10 {
                all.append(&mut gateway.vectors("tiny", &json!(text)).await);
            }
            all
        })
    });
    let clients: Vec<_> = clients.collect();
    for (client, expected) in clients.into_iter().zip(expected) {
        for vector in client.await.unwrap() {
            assert!(max_difference(&vector, &expected) < SAME);
        }
    }
}

#[tokio::test]
async fn models_are_listed_and_found_by_name_and_alias() {
    let gateway = Gateway::start(&tiny_config(""));
    let list = gateway.get("/v1/models").await;
    assert_eq!(list.body["object"], "list");
    let model = &list.body["data"][0];
    for (key, value) in [
        ("id", json!("tiny")),
        ("object", json!("model")),
        ("model_type", json!("embedding")),
        ("max_model_len", json!(8192)),
        ("dimensions", json!(64)),
        ("owned_by", json!("embedgate")),
    ] {
        assert_eq!(model[key], value, "{key}");
    }
    assert!(model["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(&gateway.get("/v1/models/tiny").await.body, model);
    assert_eq!(
        &gateway.get("/v1/models/BAAI/tiny").await.body,
        model,
        "ids may hold slashes"
    );
    let missing = gateway.get("/v1/models/no/such").await;
    assert_eq!(
        (missing.status, missing.body["error"]["code"].as_str()),
        (404, Some("model_not_found"))
    );
    let by_alias = gateway
        .embed(&json!({"model": "BAAI/tiny", "input": "a"}))
        .await;
    assert_eq!(
        by_alias.body["model"], "BAAI/tiny",
        "the model's name comes back as it was sent"
    );
    for body in [
        json!({"input": "a"}),
        json!({"model": "default", "input": "a"}),
        json!({"model": "", "input": "a"}),
    ] {
        assert_eq!(gateway.embed(&body).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn every_alias_of_the_route_answers() {
    let gateway = Gateway::start(&tiny_config(""));
    let body = json!({"model": "tiny", "input": "a"}).to_string();
    for path in [
        "/v1/embeddings",
        "/embeddings",
        "/v1/v1/embeddings",
        "/v1-openai/embeddings",
        "/v1/embeddings/",
        "//v1//embeddings",
    ] {
        assert_eq!(gateway.post(path, body.clone()).await.status, 200, "{path}");
    }
    let cluster = gateway.get("/v1/cluster/auth").await;
    assert_eq!(cluster.body, json!({"auth": false}));
    for path in [
        "/livez",
        "/readyz",
        "/health",
        "/",
        "/v1/models/",
        "/v1/v1/models",
    ] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    let root = gateway.get("/").await;
    assert_eq!(
        (
            root.body["name"].as_str(),
            root.body["models"][0]["id"].as_str()
        ),
        (Some("embedgate"), Some("tiny"))
    );
}

#[tokio::test]
async fn request_ids_come_back_and_the_log_never_shows_texts() {
    let gateway = Gateway::start(&tiny_config(""));
    let secret = "a text that nobody else may read";
    let client = embedgate_test_support::client();
    let request = client
        .post(format!("{}/v1/embeddings", gateway.url))
        .header("x-request-id", "my-id-1");
    let answer = request
        .body(json!({"model": "tiny", "input": secret}).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-request-id"], "my-id-1");
    let generated = gateway.get("/livez").await;
    assert_eq!(generated.header("x-request-id").unwrap().len(), 36);
    gateway
        .embed(&json!({"model": "tiny", "input": [secret, 5]}))
        .await;
    let log = gateway.stop();
    assert!(!log.contains("nobody else"), "{log}");
    let line = log.lines().find(|line| line.contains("my-id-1")).unwrap();
    assert!(
        line.contains("\"n_inputs\":1") && line.contains("\"status\":200"),
        "{line}"
    );
}
