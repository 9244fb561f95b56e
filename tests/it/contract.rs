//! The contract of `/v1/embeddings` and its neighbours, over HTTP against the real program.

use base64_simd::STANDARD;
use serde_json::{Value, json};

use crate::support::{
    Gateway, converted, cosine, max_difference, minilm, texts, tiny_bge_m3, tiny_config,
};

/// Two f32 runs of one text in other company.
const SAME: f32 = 2e-6;

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
    gateway.wait_for_log("\"n_cached\":3");
    gateway.wait_for_log("\"n_cached\":2");
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
async fn over_long_texts_are_cut_and_the_header_says_so_on_hits_too() {
    let gateway = Gateway::start(&tiny_config("max_length = 32"));
    let long = "all work and no play ".repeat(50);
    let body = json!({"model": "tiny", "input": ["short", long, "short", long]});
    let first = gateway.embed(&body).await;
    let header = first.header("x-truncated").unwrap().to_owned();
    let parts: Vec<&str> = header.split(',').collect();
    assert_eq!(parts.len(), 2, "{header}");
    assert!(
        parts[0].starts_with("1:") && parts[1].starts_with("3:") && header.ends_with(">32"),
        "{header}"
    );
    assert_eq!(
        gateway.embed(&body).await.header("x-truncated"),
        Some(header.as_str())
    );
    let refused = gateway
        .embed(&json!({"model": "tiny", "input": long, "truncate": false}))
        .await;
    assert_eq!(refused.status, 400);
    // What is refused must not be answered from what was cut before, nor the other way round.
    let usage = gateway
        .embed(&json!({"model": "tiny", "input": long}))
        .await;
    assert_eq!(usage.body["usage"]["prompt_tokens"], 32);
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
async fn openais_tokens_give_the_vector_of_their_text() {
    let (cl100k, o200k) = (
        tiktoken_rs::cl100k_base_singleton(),
        tiktoken_rs::o200k_base_singleton(),
    );
    for (setting, bpe, name) in [
        ("", cl100k, "cl100k_base"),
        ("token_ids = \"o200k\"", o200k, "o200k_base"),
    ] {
        let gateway = Gateway::start(&tiny_config(setting));
        let texts = ["Hello, world!", "向量检索 🎉", "fn main() {}"];
        let tokens: Vec<Vec<u32>> = texts.iter().map(|text| bpe.encode_ordinary(text)).collect();
        let expected = gateway.vectors("tiny", &json!(texts)).await;
        assert_eq!(gateway.vectors("tiny", &json!(tokens)).await, expected);
        assert_eq!(
            gateway.vectors("tiny", &json!(tokens[0])).await,
            expected[..1],
            "one flat list is one input"
        );
        let unknown = gateway
            .embed(&json!({"model": "tiny", "input": [[9906, 4_000_000]]}))
            .await;
        let message = format!(
            "input[0]: token id 4000000 is not in {name}, which this model's token_ids are"
        );
        assert_eq!((unknown.status, unknown.message()), (400, &*message));
    }
}

#[tokio::test]
async fn native_tokens_go_to_the_model_as_they_are() {
    let gateway = Gateway::start(&tiny_config("token_ids = \"native\""));
    let folder = tiny_bge_m3();
    let tokenizer = embedgate::model::tokenizer::TextTokenizer::load(&folder, 8192, false).unwrap();
    let ids = tokenizer.encode("hello world").unwrap().ids;
    let expected = gateway.vectors("tiny", &json!("hello world")).await;
    let got = gateway.vectors("tiny", &json!(ids)).await;
    assert!(max_difference(&got[0], &expected[0]) < SAME);
    let beyond = gateway
        .embed(&json!({"model": "tiny", "input": [0, 99999, 2]}))
        .await;
    assert_eq!(beyond.status, 400);
    assert!(
        beyond.message().contains("token id 99999"),
        "{}",
        beyond.message()
    );
}

#[tokio::test]
async fn token_ids_can_be_refused_with_the_way_out() {
    let gateway = Gateway::start(&tiny_config("token_ids = \"reject\""));
    let answer = gateway
        .embed(&json!({"model": "tiny", "input": [1, 2]}))
        .await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .message()
            .contains("check_embedding_ctx_length=False"),
        "{}",
        answer.message()
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
async fn both_backends_of_one_model_agree() {
    let (model, file) = (minilm(), converted(&minilm()));
    let config = format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.candle]\npath = {model:?}\n\
         [models.onnx]\npath = {model:?}\nbackend = {{ type = \"onnx\", file = {file:?} }}\n"
    );
    let gateway = Gateway::start(&config);
    let texts: Vec<String> = texts().into_iter().take(70).collect();
    let (a, b) = (
        gateway.vectors("candle", &json!(texts)).await,
        gateway.vectors("onnx", &json!(texts)).await,
    );
    for (a, b) in a.iter().zip(&b) {
        assert!(cosine(a, b) > 0.99999 && max_difference(a, b) < 1e-5);
    }
    let unnamed = gateway.embed(&json!({"input": "which?"})).await;
    assert_eq!(
        (unnamed.status, unnamed.message()),
        (400, "model is missing, choose one of: candle, onnx")
    );
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
    for path in ["/livez", "/readyz", "/health", "/", "/v1/models/"] {
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
    let client = crate::support::client();
    let request = client
        .post(format!("{}/v1/embeddings", gateway.url))
        .header("x-request-id", "my-id-1");
    let answer = request
        .body(json!({"model": "tiny", "input": secret}).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["x-request-id"], "my-id-1");
    let line = gateway.wait_for_log("my-id-1");
    assert!(
        line.contains("\"n_inputs\":1") && line.contains("\"status\":200"),
        "{line}"
    );
    let generated = gateway.get("/livez").await;
    assert_eq!(generated.header("x-request-id").unwrap().len(), 36);
    gateway
        .embed(&json!({"model": "tiny", "input": [secret, 5]}))
        .await;
    assert!(!gateway.log().contains("nobody else"), "{}", gateway.log());
}

#[tokio::test]
async fn keys_let_in_and_everything_else_is_refused_before_the_body_is_read() {
    let config = tiny_config("").replace(
        "mode = \"none\"",
        "keys = [\"${EMBEDGATE_KEY}\", \"second-key\"]",
    );
    let gateway = Gateway::start_loading(&config, &[("EMBEDGATE_KEY", "first-key-1")]);
    gateway.wait_for_log("\"message\":\"ready\"");
    let client = crate::support::client();
    let ask = |authorization: Option<&'static str>| {
        let mut request = client.post(format!("{}/v1/embeddings", gateway.url));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.body(r#"{"input": "a"}"#).send()
    };
    for good in ["Bearer first-key-1", "bearer second-key", "second-key"] {
        assert_eq!(ask(Some(good)).await.unwrap().status(), 200, "{good}");
    }
    for bad in [
        None,
        Some(""),
        Some("Bearer "),
        Some("Bearer first-key-2"),
        Some("Basic first-key-1x"),
        Some("Bearer \u{e9}"),
    ] {
        let answer = ask(bad).await.unwrap();
        assert_eq!(answer.status(), 401, "{bad:?}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "invalid_api_key");
    }
    assert_eq!(gateway.get("/v1/models").await.status, 401);
    assert_eq!(
        gateway.get("/readyz").await.status,
        200,
        "probes need no key"
    );
    assert!(
        !gateway.log().contains("first-key"),
        "no key is ever logged"
    );
}

#[tokio::test]
async fn without_keys_any_authorization_is_accepted() {
    let gateway = Gateway::start(&tiny_config(""));
    for value in ["", "Bearer ", "Bearer empty", "lm-studio"] {
        let request = crate::support::client()
            .post(format!("{}/v1/embeddings", gateway.url))
            .header("authorization", value);
        assert_eq!(
            request
                .body(r#"{"input": "a"}"#)
                .send()
                .await
                .unwrap()
                .status(),
            200,
            "{value:?}"
        );
    }
}

#[tokio::test]
async fn browsers_may_call_only_where_the_config_says_so() {
    let preflight = |url: String| {
        let request = crate::support::client()
            .request(reqwest::Method::OPTIONS, format!("{url}/v1/embeddings"));
        request
            .header("origin", "https://a.example")
            .header("access-control-request-method", "POST")
            .send()
    };
    let closed = Gateway::start(&tiny_config(""));
    assert!(
        preflight(closed.url.clone())
            .await
            .unwrap()
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
    let open = Gateway::start(&tiny_config(
        "[server]\ncors_origins = [\"https://a.example\"]",
    ));
    let answer = preflight(open.url.clone()).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["access-control-allow-origin"]
        ),
        (200, &"https://a.example".parse().unwrap())
    );
}

#[tokio::test]
async fn a_prompt_goes_in_front_of_every_text() {
    let gateway = Gateway::start(&tiny_config(
        "default_prompt = \"query\"\nprompts = { query = \"query: \" }",
    ));
    let plain = Gateway::start(&tiny_config(""));
    let with_prompt = gateway.vectors("tiny", &json!("cats")).await;
    assert!(
        max_difference(
            &with_prompt[0],
            &plain.vectors("tiny", &json!("query: cats")).await[0]
        ) < SAME
    );
    assert!(
        max_difference(
            &with_prompt[0],
            &plain.vectors("tiny", &json!("cats")).await[0]
        ) > 1e-3
    );
}

#[tokio::test]
async fn a_config_can_turn_the_prompt_of_a_folder_off() {
    let gateway = Gateway::start(&tiny_config("default_prompt = \"\""));
    assert_eq!(gateway.vectors("tiny", &json!("cats")).await.len(), 1);
}
