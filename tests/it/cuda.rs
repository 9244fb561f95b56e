//! Models on a card, which the simulator of the driver plays.

use cuda_simulator::library;
use serde_json::json;

use embedgate_test_support::{
    Gateway, config_file, cosine, embedgate, numbers, run, tiny_bge_m3, tiny_config,
};

/// The tiny model on the processor, as `tiny`, and on a card.
fn config(backend: &str) -> String {
    tiny_config(&format!(
        "[models.card]\npath = {:?}\nbackend = {{ {backend} }}\nmax_batch_tokens = 600\n[cuda]\nlibrary = {:?}",
        tiny_bge_m3(),
        library()
    ))
}

fn start(settings: &str) -> Gateway {
    let variables = [("CUDA_SIMULATOR", settings)];
    let mut gateway = Gateway::start_loading(&config(r#"type = "cuda""#), &variables);
    gateway.wait_until_ready();
    gateway
}

#[tokio::test]
async fn a_model_on_a_card_gives_what_it_gives_on_the_processor() {
    let gateway = start("capability=9.0");
    let texts = ["The cat sits on the mat.", "猫坐在垫子上。", "a"];
    let [card, processor] = ["card", "tiny"].map(
        |model| json!({"model": model, "input": texts, "outputs": ["dense", "sparse", "colbert"]}),
    );
    let (card, processor) = (
        gateway.ok("/v1/embeddings", &card).await,
        gateway.ok("/v1/embeddings", &processor).await,
    );
    assert_eq!(card["usage"], processor["usage"]);
    for i in 0..texts.len() {
        let of = |answer: &serde_json::Value| numbers(&answer["data"][i]["embedding"]);
        assert!(cosine(&of(&card), &of(&processor)) > 0.9999);
        let tokens = |answer: &serde_json::Value| {
            answer["data"][i]["colbert_embedding"]
                .as_array()
                .unwrap()
                .len()
        };
        assert_eq!(tokens(&card), tokens(&processor));
        let ids =
            |answer: &serde_json::Value| answer["data"][i]["sparse_embedding"]["indices"].clone();
        assert_eq!(ids(&card), ids(&processor));
    }
    let models = gateway.get("/v1/models").await.body;
    let card = models["data"].as_array().unwrap();
    let card = card.iter().find(|model| model["id"] == "card").unwrap();
    assert_eq!(
        [&card["backend"], &card["device"], &card["precision"]],
        ["cuda", "cuda:0", "f16"]
    );
    let log = gateway.stop();
    assert!(
        log.contains("cuda:0 is Simulated GPU of compute capability 9.0"),
        "{log}"
    );
}

#[tokio::test]
async fn after_a_fault_of_the_card_the_model_is_loaded_again_and_others_serve() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fault");
    let gateway = start(&format!("fault_file={}", file.display()));
    let ask = |model: &'static str, i: usize| json!({"model": model, "input": format!("text {i}"), "outputs": ["dense", "colbert"]});
    gateway.ok("/v1/embeddings", &ask("card", 0)).await;
    std::fs::write(&file, "").unwrap();
    let lost = gateway.ask("/v1/embeddings", &ask("card", 1)).await;
    assert_eq!(
        lost.body["error"]["code"], "model_unavailable",
        "{}",
        lost.status
    );
    gateway.ok("/v1/embeddings", &ask("tiny", 0)).await;
    gateway.logged("a backend of model card is back", 1).await;
    gateway.ok("/v1/embeddings", &ask("card", 2)).await;
}

/// Starts with the tiny model on the devices that `auto` finds.
fn start_auto(settings: &str) -> Gateway {
    let text = config(r#"device = "auto""#);
    let mut gateway = Gateway::start_loading(&text, &[("CUDA_SIMULATOR", settings)]);
    gateway.wait_until_ready();
    gateway
}

#[tokio::test]
async fn auto_takes_the_first_device_that_runs_the_model_and_says_why_not_the_others() {
    // What the driver is like, the device that is taken, and the reason of the first that is not.
    let cases = [
        ("devices=2", "cuda:0", None),
        (
            "devices=0",
            "cpu",
            Some(("cuda", "the driver finds no NVIDIA card")),
        ),
        (
            "devices=1 capability=7.5",
            "cpu",
            Some(("cuda:0", "compute capability 7.5")),
        ),
        (
            "devices=1 memory=1",
            "cpu",
            Some(("cuda:0", "OUT_OF_MEMORY")),
        ),
        ("devices=1 init=999", "cpu", Some(("cuda", "cuInit"))),
    ];
    for (settings, device, skipped) in cases {
        let gateway = start_auto(settings);
        gateway
            .ok("/v1/embeddings", &json!({"model": "card", "input": "a"}))
            .await;
        let models = gateway.get("/v1/models/card").await.body;
        assert_eq!(models["device"], device, "{settings}");
        let log = gateway.stop();
        let Some((name, reason)) = skipped else {
            assert_eq!(models["skipped_devices"], json!(null), "{settings}");
            continue;
        };
        let first = &models["skipped_devices"][0];
        assert_eq!(first["device"], name, "{settings}");
        assert!(
            first["reason"].as_str().unwrap().contains(reason),
            "{settings}: {first}"
        );
        let line = format!("model card does not run on {name}: ");
        assert_eq!(log.matches(&line).count(), 1, "{settings}: {log}");
    }
}

#[tokio::test]
async fn of_several_cards_behind_one_queue_one_serves_while_another_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fault");
    let settings = format!("devices=2 fault_file={}", file.display());
    let text = config(r#"devices = ["cuda:0", "cuda:1"]"#);
    let mut gateway = Gateway::start_loading(&text, &[("CUDA_SIMULATOR", &settings)]);
    gateway.wait_until_ready();
    let models = gateway.get("/v1/models/card").await.body;
    assert_eq!(models["device"], "cuda:0,cuda:1");
    let ask = |i: usize| json!({"model": "card", "input": format!("text {i}")});
    std::fs::write(&file, "").unwrap();
    let lost = gateway.ask("/v1/embeddings", &ask(0)).await;
    assert_eq!(
        lost.body["error"]["code"], "model_unavailable",
        "{}",
        lost.status
    );
    // At once, and without the card that is loaded again.
    for i in 1..4 {
        gateway.ok("/v1/embeddings", &ask(i)).await;
    }
    gateway.logged("a backend of model card is back", 1).await;
    let again = gateway.ok("/v1/embeddings", &ask(4)).await;
    assert_eq!(again["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_start_that_sees_an_idle_card_says_the_line_that_uses_it() {
    // As JSON writes it.
    let advice = r#"this machine has a Simulated GPU: `backend = { device = \"cuda:0\" }`"#;
    let library = format!("[cuda]\nlibrary = {:?}", library());
    let start =
        |text: &str, settings| Gateway::start_loading(text, &[("CUDA_SIMULATOR", settings)]);
    let gateway = start(&tiny_config(&library), "devices=1");
    gateway.logged(advice, 1).await;
    drop(gateway);
    // Not where a model uses it, nor where it is too old.
    for (text, settings) in [
        (config(r#"type = "cuda""#), "devices=1"),
        (tiny_config(&library), "devices=1 capability=7.5"),
    ] {
        let mut gateway = start(&text, settings);
        gateway.wait_until_ready();
        let log = gateway.stop();
        assert!(!log.contains("this machine has a"), "{log}");
    }
}

#[test]
fn what_does_not_fit_together_is_said() {
    let cases = [
        (
            r#"type = "cuda", device = "cpu""#,
            r#"is "cpu", and type = "cuda" runs on cards alone"#,
        ),
        (
            r#"device = "gpu""#,
            r#""gpu" is no device: expected "auto", "cpu", "cuda:0""#,
        ),
        (
            r#"type = "cuda", precision = "f32""#,
            r#"must be "f16", "bf16" or "auto" with type = "cuda""#,
        ),
        (
            "type = \"cuda\" }\nreplicas = \"auto\"\nprompts = {",
            "must be a number on a card",
        ),
        (
            r#"type = "cuda", threads = 2"#,
            "a card has threads of its own",
        ),
        (
            r#"precision = "f16""#,
            r#"must be "f32", "bf16", "int8" or "auto" with type = "cpu""#,
        ),
    ];
    for (backend, expected) in cases {
        let file = config_file(&config(backend));
        let (code, _, said) = run(embedgate().arg("check").arg(file.path()));
        assert_eq!(code, Some(78), "{backend}: {said}");
        assert!(said.contains(expected), "{backend}: {said}");
    }
}

#[test]
fn candle_on_a_card_names_the_feature_and_the_engine_that_every_build_has() {
    let file = config_file(&config(r#"type = "candle", device = "cuda:0""#));
    let (code, _, said) = run(embedgate().arg("check").arg(file.path()));
    assert_eq!(code, Some(78), "{said}");
    for expected in [
        "candle-cuda",
        r#"type = "cuda" runs the model's own weights"#,
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_card_that_is_not_there_is_said_with_what_is_missing() {
    let file = config_file(&config(r#"type = "cuda", device = "cuda:1""#));
    let mut command = embedgate();
    command.env("CUDA_SIMULATOR", "devices=1");
    let (code, _, said) = run(command.arg("check").arg(file.path()));
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("models.card: there is no device cuda:1: the driver has 1"),
        "{said}"
    );
    let text =
        config(r#"type = "cuda""#).replace(library().to_str().unwrap(), "/nowhere/libcuda.so.1");
    let file = config_file(&text);
    let (code, _, said) = run(embedgate().arg("check").arg(file.path()));
    assert_eq!(code, Some(78), "{said}");
    let expected = "models.card: there is no NVIDIA driver: /nowhere/libcuda.so.1 cannot be loaded";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_backend_on_a_card_is_measured_with_the_share_of_its_fastest_product() {
    let file = config_file(&config(r#"device = "auto""#));
    let mut command = embedgate();
    command.env("CUDA_SIMULATOR", "devices=1");
    command
        .args(["bench-backend", "--model", "card", "--config"])
        .arg(file.path());
    let args = ["--batch-tokens", "48", "--longest", "16", "--rounds", "1"];
    let (code, out, said) = run(command.args(args));
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("backend cuda on cuda:0"), "{out}");
    let line = out.lines().find(|line| line.starts_with("3 x 16")).unwrap();
    assert!(line.contains("%)"), "{out}");
}

#[test]
fn doctor_examines_every_kernel_in_every_form_and_times_products() {
    let mut command = embedgate();
    command.args([
        "doctor",
        "cuda",
        "--rows",
        "1",
        "--width-steps",
        "1",
        "--library",
    ]);
    let (code, told, said) = run(command.arg(library()));
    assert_eq!(code, Some(0), "{told}{said}");
    for line in [
        "cuda:0 is Simulated GPU: compute capability 8.0",
        "ok    54 kernels by PTX for 8.0 give right results",
        "ok    54 kernels by machine code for 8.0 give right results",
        "bf16 128x256x64",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let mut command = embedgate();
    command.args(["doctor", "cuda", "--device", "99", "--library"]);
    let (code, _, said) = run(command.arg(library()));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no device cuda:99"), "{said}");
}
