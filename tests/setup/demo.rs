//! The demo of the README.

use crate::support::minilm;
use embedgate_test_support::{Gateway, embedgate, root, run};
use serde_json::json;

#[tokio::test]
async fn the_demo_of_the_readme_serves_both_backends() {
    let model = minilm();
    if !model.join("onnx/model.onnx").exists() {
        let (code, _, log) = run(embedgate().arg("convert").arg(&model));
        assert_eq!(code, Some(0), "{log}");
    }
    let demo = std::fs::read_to_string(root().join("config/demo.toml")).unwrap();
    let config = format!(
        "{}\n[log]\nformat = \"json\"\n",
        demo.replace("../models", root().join("models").to_str().unwrap())
    );
    let gateway = Gateway::start(&config);
    let a = gateway.vectors("all-MiniLM-L6-v2", &json!("hello")).await;
    let b = gateway
        .vectors("all-MiniLM-L6-v2-onnx", &json!("hello"))
        .await;
    assert!(embedgate_test_support::max_difference(&a[0], &b[0]) < 1e-5);
    assert_eq!(
        gateway
            .embed(&json!({"input": "the default model"}))
            .await
            .body["model"],
        "all-MiniLM-L6-v2"
    );
}
