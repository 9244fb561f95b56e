//! One model in all backends through the real program.

use crate::support::{converted, minilm};
use embedgate_test_support::{Gateway, SAME, cosine, max_difference, numbers, texts};
use serde_json::json;

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
async fn embed_all_gives_the_vectors_that_pooling_takes_the_mean_of() {
    let (model, file) = (minilm(), converted(&minilm()));
    let gateway = Gateway::start(&format!(
        "default_model = \"candle\"\n[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.candle]\npath = {model:?}\n\
         [models.onnx]\npath = {model:?}\nbackend = {{ type = \"onnx\", file = {file:?} }}\n"
    ));
    let texts = ["The cat sits on the mat.", "", "猫坐在垫子上。"];
    for model in ["candle", "onnx"] {
        let body = json!({"model": model, "inputs": texts});
        let all = gateway.ok("/embed_all", &body).await;
        let pooled = gateway.ok("/embed", &body).await;
        let tokens = gateway.ok("/tokenize", &body).await;
        for (i, text) in texts.iter().enumerate() {
            let rows: Vec<Vec<f32>> = all[i].as_array().unwrap().iter().map(numbers).collect();
            assert_eq!(rows.len(), tokens[i].as_array().unwrap().len(), "{text}");
            let mut mean = vec![0.0_f32; 384];
            for row in &rows {
                mean.iter_mut()
                    .zip(row)
                    .for_each(|(sum, x)| *sum += x / rows.len() as f32);
            }
            let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
            mean.iter_mut().for_each(|x| *x /= length);
            assert!(
                max_difference(&mean, &numbers(&pooled[i])) < SAME,
                "{model} {text}"
            );
        }
        // Kept ones are the same.
        let again = gateway
            .ok("/embed_all", &json!({"model": model, "inputs": texts[0]}))
            .await;
        assert_eq!(again[0], all[0]);
    }
    let refused = gateway.ask("/embed_all", &json!({"inputs": []})).await;
    assert_eq!(
        (refused.status, &refused.body["error_type"]),
        (400, &json!("Empty"))
    );
}
