//! ONNX files as the hub has them, against what sentence-transformers makes of the models' own weights.

use embedgate_test_support::{Gateway, Reference, fixtures, max_difference, root, texts};
use serde_json::json;

/// With inputs for keys and values of tokens before, in f32, and in f16 with results in f16.
#[tokio::test]
async fn files_with_inputs_for_tokens_before_give_what_the_weights_give() {
    let folder = fixtures().join("qwen3-onnx");
    let library = root().join(".embedgate/lib");
    let gateway = Gateway::start(&format!(
        "[auth]\nmode = \"none\"\n[onnxruntime]\nlibrary = {library:?}\n\
         [models.f32]\npath = {folder:?}\nbackend = {{ type = \"onnx\" }}\n\
         [models.f16]\npath = {folder:?}\nbackend = {{ type = \"onnx\", file = {:?} }}\n",
        folder.join("onnx/model_fp16.onnx")
    ));
    let reference = Reference::open("layouts/qwen3-embedding/expected.safetensors");
    let expected = reference.floats("embeddings");
    let texts = texts();
    let all = json!(&texts[..19]);
    for (name, most) in [("f32", 1e-4), ("f16", 5e-3)] {
        let together = gateway.vectors(name, &all).await;
        let width = together[0].len();
        for (i, (text, expected)) in texts.iter().zip(expected.chunks(width)).enumerate() {
            let got = gateway.vectors(name, &json!([text])).await;
            let far = max_difference(&got[0], expected);
            assert!(far < most, "{name}, text {i} {text:?}: {far}");
            if let Some(together) = together.get(i) {
                let far = max_difference(together, expected);
                assert!(far < most, "{name}, text {i} {text:?} among others: {far}");
            }
        }
    }
}
