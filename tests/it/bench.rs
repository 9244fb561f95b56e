//! `embedgate bench` against the real program.

use embedgate_core::Precision;
use serde_json::Value;

use crate::support::{Gateway, embedgate, run, runs, tiny_bge_m3, tiny_config};

#[test]
fn a_bench_reports_every_target_and_load_and_writes_its_files() {
    let gateway = Gateway::start(&tiny_config("[cache]\nmax_text_size = \"1MiB\""));
    let folder = tempfile::tempdir().unwrap();
    let (json, svg) = (folder.path().join("a.json"), folder.path().join("a.svg"));
    let mut command = embedgate();
    command
        .args([
            "bench",
            &format!("one={}", gateway.url),
            &gateway.url,
            "--bare",
        ])
        .args([
            "-n",
            "1,2",
            "-d",
            "200ms",
            "--warm-up",
            "50ms",
            "--rounds",
            "2",
        ])
        .args([
            "--hit-ratio",
            "0.5",
            "--hot",
            "5",
            "--words",
            "3..9",
            "--inputs",
            "2",
        ])
        .arg("--json")
        .arg(&json)
        .arg("--svg")
        .arg(&svg);
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(0), "{errors}");
    let rows: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = rows["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["target"].as_str().unwrap())
        .collect();
    let url = gateway.url.as_str();
    assert_eq!(names, ["bare", "one", url, "bare", "one", url]);
    for row in rows {
        assert!(row["requests_per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["tokens_per_second"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["errors"], 0.0, "{row}");
        let (p50, p99) = (row["p50_ms"].as_f64(), row["p99_ms"].as_f64());
        assert!(p50 > Some(0.0) && p50 <= p99, "{row}");
        assert!(out.contains(row["target"].as_str().unwrap()));
    }
    let svg = std::fs::read_to_string(&svg).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("one"), "{svg}");
}

#[test]
fn an_open_loop_sees_refusals() {
    let config = tiny_config("queue_capacity = 1\nmax_batch_tokens = 1\n[server]\nmax_inputs = 1");
    let gateway = Gateway::start(&config);
    let mut command = embedgate();
    command
        .args(["bench", &gateway.url, "--rate", "5000", "-d", "500ms"])
        .args(["--warm-up", "0s", "--rounds", "1", "--words", "300"]);
    let (code, out, errors) = run(&mut command);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("refusals p99"), "{out}");
}

#[test]
fn a_target_that_cannot_be_measured_is_named() {
    let gateway = Gateway::start(&tiny_config(""));
    for (args, expected) in [
        (vec!["http://127.0.0.1:1"], "cannot be reached"),
        (
            vec![gateway.url.as_str(), "--model", "nobody"],
            "answers 404",
        ),
        (
            vec![gateway.url.as_str(), "--hit-ratio", "2"],
            "--hit-ratio must be 0 to 1",
        ),
        (
            vec![gateway.url.as_str(), "-n", "0"],
            "--concurrency is 1 to 10000",
        ),
        (
            vec![gateway.url.as_str(), "--texts", "/nowhere"],
            "/nowhere cannot be read",
        ),
    ] {
        let (code, _, errors) = run(embedgate().arg("bench").args(&args));
        assert_eq!(code, Some(1), "{args:?}: {errors}");
        assert!(errors.contains(expected), "{args:?}: {errors}");
    }
    let (code, _, errors) = run(embedgate().args(["bench", "https://a.example"]));
    assert_eq!(code, Some(64), "{errors}");
    assert!(errors.contains("only http:// is spoken"), "{errors}");
}

#[test]
fn a_backend_is_measured_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("embedgate.toml");
    std::fs::write(&file, tiny_config("")).unwrap();
    let bench = |args: &[&str]| {
        let mut command = embedgate();
        command.args(["bench-backend", "--config"]).arg(&file);
        run(command.args(args))
    };
    let (code, out, errors) = bench(&["-n", "5", "--words", "3", "--rounds", "1"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        out.contains("5 texts") && out.contains("one text at a time"),
        "{out}"
    );
    let (mut asked, mut coarser) = (vec!["f32"], Vec::new());
    for (name, precision, least) in [
        ("bf16", Precision::Bf16, 0.9999),
        ("int8", Precision::Int8, 0.99),
    ] {
        if runs(precision) {
            asked.push(name);
            coarser.push((name, least));
        } else {
            let (code, _, errors) = bench(&["-p", name]);
            let expected = format!("oneDNN cannot run a model in {name} on this processor");
            assert!(code == Some(1) && errors.contains(&expected), "{errors}");
        }
    }
    let ordered = asked.clone();
    asked.rotate_left(1);
    let (code, out, errors) = bench(&["-p", &asked.join(","), "--rounds", "2"]);
    assert_eq!(code, Some(0), "{errors}");
    // f32 comes first, whatever the order, and the rest is compared with it.
    let cells = |row: &str| -> Vec<String> {
        let line = out.lines().find(|line| line.starts_with(row));
        let line = line.unwrap_or_else(|| panic!("no {row} in {out}"));
        let cells = line[row.len()..].split_whitespace();
        cells.map(str::to_owned).collect()
    };
    assert_eq!(cells("sequences x tokens"), ordered);
    let number = |text: &String| text.parse::<f64>().unwrap();
    assert!(cells("products, GFLOP/s").iter().all(|c| number(c) > 0.1));
    assert!(number(&cells("8 x 128")[0]) > 1.0, "{out}");
    for (precision, least) in coarser {
        let cosines = cells(precision);
        let (mean, worst) = (number(&cosines[0]), number(&cosines[1]));
        assert!(worst > least && worst <= mean && mean < 1.0, "{out}");
    }
    for (args, expected) in [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--model", "other"], "no such model"),
    ] {
        let (code, _, errors) = bench(&args);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
    let (code, _, errors) = bench(&["-p", "f32,bf16", "--queries", "144", "--longest", "16"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("--queries must be 1 to 143"), "{errors}");
    let with_backend = |backend: &str| {
        let config = tiny_config("").replace("threads = 1", backend);
        std::fs::write(&file, config).unwrap();
        let (code, _, errors) = bench(&["-p", "f32,bf16"]);
        assert_eq!(code, Some(1), "{errors}");
        errors
    };
    for (backend, expected) in [
        ("type = \"candle\"", "candle has one"),
        ("type = \"onnx\"", "--precision f32,int8"),
        (
            "type = \"onnx\", file = \"a.onnx\"",
            "leave out backend.file",
        ),
    ] {
        let errors = with_backend(backend);
        assert!(errors.contains(expected), "{errors}");
    }
}

#[tokio::test]
async fn metrics_count_what_happened_and_need_no_key() {
    let path = tiny_bge_m3();
    let config = format!(
        "[auth]\nkeys = [\"a-long-key\"]\n[log]\nformat = \"json\"\n[models.tiny]\npath = {path:?}\n"
    );
    let gateway = Gateway::start(&config);
    let client = crate::support::client();
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
            "embedgate_model_info{model=\"tiny\",backend=\"cpu\",device=\"cpu\",precision=\"f32\"}",
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
}
