//! The metrics of a running server.

use embedgate_test_support::{Gateway, tiny_bge_m3};

#[tokio::test]
async fn metrics_count_what_happened_and_need_no_key() {
    let path = tiny_bge_m3();
    let config = format!(
        "[auth]\nkeys = [\"a-long-key\"]\n[log]\nformat = \"json\"\n[models.tiny]\npath = {path:?}\n\
         backend = {{ type = \"candle\" }}\n"
    );
    let gateway = Gateway::start(&config);
    let client = embedgate_test_support::client();
    for key in ["a-long-key", "a-long-key", "another-key"] {
        let request = client.post(format!("{}/v1/embeddings", gateway.url));
        let request = request.bearer_auth(key).body(r#"{"input": ["a", "b"]}"#);
        request.send().await.unwrap();
    }
    let metrics = gateway.metrics().await;
    for (name, value) in [
        (
            "embedgate_requests_total{route=\"/v1/embeddings\",status=\"200\"}",
            2.0,
        ),
        (
            "embedgate_model_info{model=\"tiny\",backend=\"candle\",device=\"cpu\",precision=\"f32\"}",
            1.0,
        ),
        (
            "embedgate_requests_total{route=\"/v1/embeddings\",status=\"401\"}",
            1.0,
        ),
        (
            "embedgate_refused_requests_total{reason=\"invalid_api_key\"}",
            1.0,
        ),
        (
            "embedgate_inputs_total{model=\"tiny\",result=\"miss\"}",
            2.0,
        ),
        ("embedgate_inputs_total{model=\"tiny\",result=\"hit\"}", 2.0),
        ("embedgate_model_ready{model=\"tiny\"}", 1.0),
    ] {
        assert_eq!(metrics.get(name), Some(&value), "{name}");
    }
    assert!(metrics["process_resident_memory_bytes"] > 1e6);
    let request = client.get(format!("{}/metrics", gateway.url));
    let older = request.header("accept", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1");
    let older = older.send().await.unwrap();
    let content_type = older.headers()["content-type"].to_str().unwrap();
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    let text = older.text().await.unwrap();
    assert!(
        text.contains("# TYPE embedgate_requests_total counter"),
        "{text}"
    );
}
