//! `embedgate bench` against the real program.

use embedgate_test_support::{Gateway, embedgate, run, tiny_config};
use serde_json::Value;

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
