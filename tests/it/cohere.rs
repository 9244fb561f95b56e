//! The dialect of Cohere.

use base64_simd::STANDARD;
use embedgate_test_support::{Gateway, SAME, max_difference, numbers, tiny_config};
use serde_json::json;

#[tokio::test]
async fn cohere_is_spoken() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway.vectors("tiny", &json!(["a"])).await.remove(0);
    let body = json!({"model": "tiny", "input_type": "classification", "texts": ["a"],
        "embedding_types": ["ubinary", "float", "binary", "base64"], "truncate": "END"});
    let answer = gateway.ok("/v2/embed", &body).await;
    assert_eq!(answer["response_type"], "embeddings_by_type");
    assert_eq!(answer["meta"]["billed_units"]["input_tokens"], 3);
    let all = &answer["embeddings"];
    assert!(max_difference(&numbers(&all["float"][0]), &expected) < SAME);
    let bytes = STANDARD
        .decode_to_vec(all["base64"][0].as_str().unwrap())
        .unwrap();
    assert_eq!(bytes.len(), 256);
    let bits: Vec<u8> = serde_json::from_value(all["ubinary"][0].clone()).unwrap();
    let signed: Vec<i8> = serde_json::from_value(all["binary"][0].clone()).unwrap();
    for (i, x) in expected.iter().enumerate() {
        let bit = bits[i / 8] >> (7 - i % 8) & 1;
        assert_eq!(bit == 1, *x > 0.0, "bit {i}");
        assert_eq!(i16::from(signed[i / 8]), i16::from(bits[i / 8]) - 128);
    }
    for (more, part) in [
        (
            json!({"embedding_types": ["int8"]}),
            "embedding_types must be",
        ),
        (json!({"images": ["data:"]}), "images is not supported"),
        (json!({"truncate": "MIDDLE"}), "\"NONE\" or \"START\""),
        (json!({"texts": []}), "texts must hold at least one"),
    ] {
        let mut body = json!({"model": "tiny", "texts": ["a"]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = gateway.ask("/v2/embed", &body).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.body["message"].as_str().unwrap().contains(part),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn the_first_version_repeats_the_texts() {
    let gateway = Gateway::start(&tiny_config(""));
    let body = json!({"texts": ["a", "b"], "model": "tiny", "input_type": "search_document"});
    let v2 = gateway.ok("/v2/embed", &body).await;
    let plain = gateway.ok("/v1/embed", &body).await;
    assert_eq!(plain["texts"], body["texts"]);
    assert_eq!(plain["embeddings"], v2["embeddings"]["float"]);
    assert_eq!(plain["response_type"], "embeddings_floats");
    assert_eq!(plain["meta"]["api_version"]["version"], "1");
    let mut typed = body.clone();
    typed["embedding_types"] = json!(["float", "ubinary"]);
    let typed = gateway.ok("/v1/embed", &typed).await;
    assert_eq!(typed["embeddings"]["float"], plain["embeddings"]);
    assert_eq!(typed["response_type"], "embeddings_by_type");
    let bad = gateway.ask("/v1/embed", &json!({"texts": 5})).await;
    assert_eq!(bad.status, 400);
    assert!(bad.body["message"].is_string(), "{}", bad.body);
}
