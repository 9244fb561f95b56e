//! The dialect of text-embeddings-inference.

use embedgate_test_support::{Gateway, SAME, cosine, ids, max_difference, numbers, tiny_config};
use serde_json::{Value, json};

#[tokio::test]
async fn text_embeddings_inference_is_spoken() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway
        .vectors("tiny", &json!(["hello world", "好 world"]))
        .await;
    for path in ["/embed", "/"] {
        let answer = gateway
            .ask(path, &json!({"inputs": ["hello world", "好 world"]}))
            .await;
        assert_eq!(answer.header("x-compute-characters"), Some("18"));
        assert_eq!(answer.header("x-compute-type"), Some("cpu"));
        for step in ["tokenization", "queue", "inference"] {
            let time = answer.header(&format!("x-{step}-time")).unwrap();
            assert!(time.parse::<u64>().is_ok(), "{step}: {time}");
        }
        let n_tokens: usize = answer.header("x-compute-tokens").unwrap().parse().unwrap();
        assert!(n_tokens > 8);
        for (i, expected) in expected.iter().enumerate() {
            assert!(max_difference(&numbers(&answer.body[i]), expected) < SAME);
        }
    }
    let tokens = gateway
        .ok("/tokenize", &json!({"inputs": "好 world"}))
        .await;
    let native: Vec<&Value> = tokens[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| &token["id"])
        .collect();
    let mixed = gateway
        .ok("/embed", &json!({"inputs": ["hello world", native]}))
        .await;
    for (i, expected) in expected.iter().enumerate() {
        assert!(max_difference(&numbers(&mixed[i]), expected) < SAME);
    }
    let health = gateway.get("/health").await;
    assert_eq!((health.status, health.body), (200, json!("")));
    let one = gateway
        .ok("/embed", &json!({"inputs": "hello world"}))
        .await;
    assert_eq!(
        one.as_array().unwrap().len(),
        1,
        "one input still gives a list"
    );
    let cut = gateway
        .ok(
            "/embed",
            &json!({"inputs": "hello world", "dimensions": 8, "normalize": false}),
        )
        .await;
    assert_eq!(cut[0].as_array().unwrap().len(), 8);

    let tokens = gateway
        .ok("/tokenize", &json!({"inputs": "hello wörld"}))
        .await;
    let tokens = tokens[0].as_array().unwrap();
    assert_eq!(
        (&tokens[0]["special"], &tokens[0]["start"]),
        (&json!(true), &Value::Null)
    );
    let inner: Vec<&Value> = tokens
        .iter()
        .filter(|token| token["special"] == false)
        .collect();
    assert_eq!(
        inner.last().unwrap()["stop"],
        11,
        "places are in characters"
    );
    let all: Vec<usize> = tokens
        .iter()
        .map(|token| ids(&json!([token["id"]]))[0])
        .collect();
    let bare = gateway
        .ok(
            "/tokenize",
            &json!({"inputs": ["hello wörld"], "add_special_tokens": false}),
        )
        .await;
    assert_eq!(bare[0].as_array().unwrap().len(), inner.len());
    let text = gateway.ok("/decode", &json!({"ids": all})).await;
    assert_eq!(text, json!(["hello wörld"]));
    let special = gateway
        .ok(
            "/decode",
            &json!({"ids": [all], "skip_special_tokens": false}),
        )
        .await;
    assert!(special[0].as_str().unwrap().starts_with("<s>"), "{special}");
    let native = gateway.ok("/embed", &json!({"inputs": all})).await;
    let text = gateway.vectors("tiny", &json!("hello wörld")).await;
    assert!(
        max_difference(&numbers(&native[0]), &text[0]) < SAME,
        "ids are the model's own"
    );

    let sparse = gateway
        .ok("/embed_sparse", &json!({"inputs": "hello world"}))
        .await;
    let body = json!({"input": "hello world", "outputs": ["sparse"]});
    let like = gateway.ok("/v1/embeddings", &body).await["data"][0]["sparse_embedding"].clone();
    let pairs = sparse[0].as_array().unwrap();
    let of = |name: &str| Value::from_iter(pairs.iter().map(|pair| pair[name].clone()));
    assert_eq!(
        (of("index"), of("value")),
        (like["indices"].clone(), like["values"].clone())
    );

    let inputs =
        json!({"source_sentence": "hello world", "sentences": ["好 world", "hello world"]});
    let scores = numbers(&gateway.ok("/similarity", &json!({"inputs": inputs})).await);
    let like = cosine(&expected[0], &expected[1]);
    assert!(
        (f64::from(scores[0]) - like).abs() < 1e-5 && (scores[1] - 1.0).abs() < 1e-5,
        "{scores:?} {like}"
    );

    let info = gateway.get("/info").await.body;
    assert_eq!(
        (
            &info["model_id"],
            &info["model_type"]["embedding"]["pooling"]
        ),
        (&json!("tiny"), &json!("cls"))
    );
    assert_eq!(
        (&info["max_client_batch_size"], &info["auto_truncate"]),
        (&json!(2048), &json!(true))
    );
}
