//! ONNX models on a graphics card, which the processor plays: ONNX Runtime's WebGPU plugin on Vulkan's SwiftShader.

use std::{fs, path::Path};

use embedgate_test_support::{
    Gateway, config_file, copy, cosine, embedgate, max_difference, numbers, run, texts, tiny_bge_m3,
};
use serde_json::{Value, json};

use crate::support::{converted, installed, minilm};

/// Variables that let the plugin find SwiftShader, and take what is no hardware.
fn variables() -> [(&'static str, String); 4] {
    let vulkan = installed("vulkan");
    [
        ("LD_LIBRARY_PATH", vulkan.display().to_string()),
        (
            "VK_ICD_FILENAMES",
            vulkan.join("vk_swiftshader_icd.json").display().to_string(),
        ),
        ("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1".into()),
        ("XDG_RUNTIME_DIR", "/tmp".into()),
    ]
}

/// A copy of a model's folder with its ONNX model for cards.
fn for_gpu(model: &Path, to: &Path) {
    copy(model, to);
    let mut command = embedgate();
    command
        .arg("convert")
        .arg(to)
        .args(["--for", "gpu", "--force"]);
    let (code, _, said) = run(&mut command);
    assert_eq!(code, Some(0), "{said}");
}

fn start(models: &str) -> Gateway {
    let config = format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[cache]\nmax_size = \"0B\"\n\
         [onnxruntime]\nwebgpu = {:?}\n{models}",
        installed("webgpu")
    );
    let variables = variables();
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut gateway = Gateway::start_loading(&config, &variables);
    gateway.wait_until_ready();
    gateway
}

#[tokio::test]
async fn models_on_webgpu_give_what_they_give_on_the_processor_to_callers_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let [tiny, mini] = ["tiny", "mini"].map(|name| folder.path().join(name));
    for_gpu(&tiny_bge_m3(), &tiny);
    for_gpu(&minilm(), &mini);
    let (of_processor, of_minilm) = (converted(&tiny_bge_m3()), converted(&minilm()));
    // Two models on the card: sessions side by side are what the plugin does not bear.
    let gateway = start(&format!(
        "[models.tiny]\npath = {tiny:?}\nbackend = {{ device = \"webgpu\" }}\n\
         [models.other]\npath = {tiny:?}\nbackend = {{ type = \"onnx\", device = \"webgpu\" }}\n\
         [models.mini]\npath = {mini:?}\nbackend = {{ device = \"webgpu\" }}\n\
         [models.tiny-cpu]\npath = {tiny:?}\nbackend = {{ type = \"onnx\", file = {of_processor:?} }}\n\
         [models.mini-cpu]\npath = {mini:?}\nbackend = {{ type = \"onnx\", file = {of_minilm:?} }}\n"
    ));
    let short: Vec<String> = texts()
        .into_iter()
        .filter(|text| text.len() < 200)
        .take(6)
        .collect();
    let all = ["dense", "sparse", "colbert"];
    let answer = |model: &'static str| {
        let body = json!({"model": model, "input": short, "outputs": all});
        let gateway = &gateway;
        async move { gateway.ok("/v1/embeddings", &body).await }
    };
    let (card, processor) = (answer("tiny").await, answer("tiny-cpu").await);
    for (card, processor) in rows(&card).zip(rows(&processor)) {
        agree(
            &numbers(&card["embedding"]),
            &numbers(&processor["embedding"]),
        );
        let sparse = |row: &Value| {
            (
                row["sparse_embedding"]["indices"].clone(),
                numbers(&row["sparse_embedding"]["values"]),
            )
        };
        assert_eq!(sparse(card).0, sparse(processor).0);
        agree(&sparse(card).1, &sparse(processor).1);
        let tokens = |row: &Value| -> Vec<f32> {
            let rows = row["colbert_embedding"].as_array().unwrap().iter();
            rows.flat_map(numbers).collect()
        };
        agree(&tokens(card), &tokens(processor));
    }
    let (card, processor) = (
        gateway.vectors("mini", &json!(short[..2])).await,
        gateway.vectors("mini-cpu", &json!(short[..2])).await,
    );
    for (card, processor) in card.iter().zip(&processor) {
        agree(card, processor);
        assert!(cosine(card, processor) > 0.999_999);
    }
    // Of different texts, for equal ones share a computation.
    let texts: Vec<String> = (0..60).map(|i| format!("text {i} of many")).collect();
    let many = texts.iter().enumerate().map(|(i, text)| {
        let (model, gateway) = (["tiny", "other"][i % 2], &gateway);
        async move { gateway.vectors(model, &json!([text])).await }
    });
    let many = futures_util::future::join_all(many).await;
    let expected = gateway.vectors("tiny-cpu", &json!(texts)).await;
    for (card, processor) in many.iter().zip(&expected) {
        agree(&card[0], processor);
    }
    let models = gateway.get("/v1/models").await.body;
    let listed = rows(&models).find(|model| model["id"] == "mini").unwrap();
    assert_eq!([&listed["backend"], &listed["device"]], ["onnx", "webgpu"]);
    let log = gateway.stop();
    assert!(!log.contains("panicked"), "{log}");
}

fn rows(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["data"].as_array().unwrap().iter()
}

fn agree(card: &[f32], processor: &[f32]) {
    assert_eq!(card.len(), processor.len());
    let far = max_difference(card, processor);
    assert!(far < 1e-5, "{far}");
}

/// Attention as ONNX Runtime's own operator is wrong on this card for 32 tokens and more.
#[test]
fn a_model_that_gives_other_numbers_than_on_the_processor_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&tiny_bge_m3(), &model);
    let file = converted(&tiny_bge_m3());
    let backend = format!("device = \"webgpu\", file = {file:?}");
    let (code, said) = load(&model, &backend, &installed("webgpu"));
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("webgpu gives other dense vectors than the processor")
            && said.contains("--for gpu"),
        "{said}"
    );
}

/// The products of such a model have no implementation but the processor's: ONNX Runtime would take that without a word.
#[test]
fn a_model_whose_products_would_run_on_the_processor_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy(&tiny_bge_m3(), &model);
    let mut command = embedgate();
    command
        .arg("convert")
        .arg(&model)
        .args(["--precision", "int8"]);
    assert_eq!(run(&mut command).0, Some(0));
    let file = model.join("onnx/model_int8.onnx");
    // As one of another writer, which says nothing of its precision.
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes
        .windows(9)
        .position(|word| word == b"precision")
        .unwrap();
    bytes[at] = b'P';
    fs::write(&file, bytes).unwrap();
    let (code, said) = load(
        &model,
        &format!("device = \"webgpu\", file = {file:?}"),
        &installed("webgpu"),
    );
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("webgpu has no MatMulIntegerToFloat for this model")
            && said.contains("--for gpu"),
        "{said}"
    );
}

#[test]
fn what_is_missing_for_webgpu_is_said() {
    let model = tiny_bge_m3();
    let nowhere = Path::new("/nowhere/libonnxruntime_providers_webgpu.so");
    let (code, said) = load(&model, "device = \"webgpu\"", nowhere);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("/nowhere/") && said.contains("scripts/setup gpu"),
        "{said}"
    );
    let (code, said) = load(&model, "device = \"webgpu\"", &installed("webgpu"));
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("has no model_gpu.onnx or model.onnx") && said.contains("--for gpu"),
        "{said}"
    );
}

/// Loads a model to embed one text with it.
fn load(model: &Path, backend: &str, plugin: &Path) -> (Option<i32>, String) {
    let config = config_file(&format!(
        "[auth]\nmode = \"none\"\n[onnxruntime]\nwebgpu = {plugin:?}\n[models.tiny]\npath = {model:?}\nbackend = {{ {backend} }}\n"
    ));
    let mut command = embedgate();
    command
        .args(["embed", "--config"])
        .arg(config.path())
        .envs(variables());
    let (code, _, said) = run(&mut command);
    (code, said)
}
