//! Jina's additions to the dialect of `OpenAI`.

use embedgate_test_support::{Gateway, SAME, cosine, max_difference, tiny_config};
use serde_json::json;

#[tokio::test]
async fn jinas_additions_are_understood() {
    let gateway = Gateway::start(&tiny_config(""));
    let expected = gateway.vectors("tiny", &json!(["a", "b"])).await;
    let body = json!({"model": "tiny", "input": [{"text": "a"}, {"text": "b"}], "embedding_type": "float",
        "normalized": true, "task": "text-matching", "late_chunking": false});
    let got = gateway.embed(&body).await.vectors();
    for (a, b) in got.iter().zip(&expected) {
        assert!(max_difference(a, b) < SAME);
    }
    let raw = gateway
        .embed(&json!({"model": "tiny", "input": "a", "normalized": false}))
        .await
        .vectors();
    let length = raw[0].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 0.01 && cosine(&raw[0], &expected[0]) > 0.999_999);
    let cut = gateway
        .embed(&json!({"model": "tiny", "input": "a", "normalized": false, "dimensions": 5}))
        .await
        .vectors();
    assert!(max_difference(&cut[0], &raw[0][..5]) < SAME);
    let body = |form: &str| json!({"model": "tiny", "input": "a", "embedding_type": form});
    let bytes = async |form: &str| -> Vec<i16> {
        let answer = gateway.embed(&body(form)).await;
        serde_json::from_value(answer.body["data"][0]["embedding"].clone()).unwrap()
    };
    let (signed, unsigned) = (bytes("binary").await, bytes("ubinary").await);
    for (i, x) in expected[0].iter().enumerate() {
        assert_eq!(unsigned[i / 8] >> (7 - i % 8) & 1 == 1, *x > 0.0, "bit {i}");
        assert_eq!(signed[i / 8], unsigned[i / 8] - 128);
    }
    assert_eq!(signed.len(), expected[0].len() / 8);
    // OpenAI's clients always name an encoding.
    let mut named = body("binary");
    named["encoding_format"] = json!("base64");
    let named = gateway.embed(&named).await.body["data"][0]["embedding"].clone();
    assert_eq!(serde_json::from_value::<Vec<i16>>(named).unwrap(), signed);
    let image = gateway
        .embed(&json!({"model": "tiny", "input": [{"image": "x"}]}))
        .await;
    assert_eq!(image.status, 400);
    assert!(
        image.message().contains("input[0]") && image.message().contains("\"image\""),
        "{}",
        image.body
    );
}
