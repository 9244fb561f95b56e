//! Token ids as inputs: `OpenAI`'s, the model's own, or none.

use embedgate_test_support::{Gateway, SAME, max_difference, tiny_config};
use serde_json::{Value, json};

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
    let inputs = json!({"inputs": "hello world"});
    let tokens = gateway.ok("/tokenize", &inputs).await;
    let ids: Vec<&Value> = tokens[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| &token["id"])
        .collect();
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
