//! The cache's file: what it keeps over a restart, and what it does when the process or the disk fails.

use std::{collections::HashMap, path::Path};

use serde_json::json;

use embedgate_test_support::{Gateway, tiny_config};

fn config(file: &Path, more: &str) -> String {
    tiny_config(&format!("{more}\n[cache.file]\npath = {file:?}"))
}

/// How often the process is killed. Set the variable for a longer run.
fn kills() -> usize {
    let n = option_env!("EMBEDGATE_TEST_KILLS").map(|n| n.parse().unwrap());
    n.unwrap_or(8)
}

fn texts(from: usize, n: usize) -> Vec<String> {
    (from..from + n)
        .map(|i| format!("text number {i}"))
        .collect()
}

#[tokio::test]
async fn whenever_the_process_is_killed_the_file_opens_and_no_vector_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.redb");
    let truth = Gateway::start(&tiny_config("[cache]\nmax_size = \"0B\""));
    let mut known: HashMap<String, Vec<f32>> = HashMap::new();
    let mut from_file = 0.0;
    for round in 0..kills() {
        let mut gateway = Gateway::start(&config(&file, ""));
        gateway.wait_for_log("the cache goes on from");
        let asked = texts(round * 7, 40);
        for text in &asked {
            if !known.contains_key(text) {
                known.insert(
                    text.clone(),
                    truth.vectors("tiny", &json!(text)).await.remove(0),
                );
            }
        }
        let vectors = gateway.vectors("tiny", &json!(asked)).await;
        for (text, vector) in asked.iter().zip(&vectors) {
            // Batches differ, and so may the last bits; a vector of another text is far off.
            let close = embedgate_test_support::max_difference(vector, &known[text]) < 1e-5;
            assert!(close, "{text}");
        }
        let metrics = gateway.metrics().await;
        from_file += metrics["embedgate_inputs_total{model=\"tiny\",result=\"file\"}"];
        // Every other time at once, so that nothing is written, or the writing is under way.
        if round % 2 == 0 {
            gateway.wait_until_written().await;
        }
        gateway.kill();
    }
    assert!(from_file > 0.0, "what was written was read again");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_put_aside_and_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.redb");
    for damage in [b"this is no database".to_vec(), vec![0xff; 1 << 20]] {
        std::fs::write(&file, &damage).unwrap();
        let gateway = Gateway::start(&config(&file, ""));
        assert_eq!(gateway.vectors("tiny", &json!("a")).await.len(), 1);
        gateway.wait_for_log("damaged");
        let aside = std::fs::read(folder.path().join("results.redb.damaged")).unwrap();
        assert_eq!(aside, damage);
        drop(gateway);
        std::fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn damage_in_the_middle_of_the_file_costs_hits_and_gives_no_wrong_vector() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.redb");
    let asked = texts(0, 200);
    let mut first = Gateway::start(&config(&file, ""));
    let before = first.vectors("tiny", &json!(asked)).await;
    first.wait_until_written().await;
    first.kill();
    let second = Gateway::start(&config(&file, ""));
    assert_eq!(second.vectors("tiny", &json!(asked)).await, before);
    let from_file =
        second.metrics().await["embedgate_inputs_total{model=\"tiny\",result=\"file\"}"];
    assert!(
        (from_file - 200.0).abs() < 0.5,
        "all were in the file: {from_file}"
    );
    drop(second);
    let good = std::fs::read(&file).unwrap();
    for start in [5000, 40_000, good.len() / 2] {
        let mut bad = good.clone();
        for byte in bad.iter_mut().skip(start).step_by(97).take(300) {
            *byte ^= 0x55;
        }
        std::fs::write(&file, &bad).unwrap();
        let gateway = Gateway::start(&config(&file, ""));
        let after = gateway.vectors("tiny", &json!(asked)).await;
        for (a, b) in before.iter().zip(&after) {
            assert!(embedgate_test_support::max_difference(a, b) < 1e-5);
        }
    }
}

#[tokio::test]
async fn two_processes_do_not_share_a_file_and_the_second_takes_it_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.redb");
    let mut first = Gateway::start(&config(&file, ""));
    let second = Gateway::start(&config(&file, ""));
    second.wait_for_log("another process uses it");
    for gateway in [&first, &second] {
        assert_eq!(gateway.vectors("tiny", &json!("a")).await.len(), 1);
    }
    let is_used =
        async |gateway: &Gateway| gateway.metrics().await["embedgate_cache_file_used"] > 0.5;
    assert!(is_used(&first).await && !is_used(&second).await);
    first.wait_until_written().await;
    first.kill();
    second.wait_for_log("redb again");
    assert!(is_used(&second).await);
    // What the first wrote is under the file's own secret, which the second has now.
    second.vectors("tiny", &json!("a")).await;
    let from_file = "embedgate_inputs_total{model=\"tiny\",result=\"file\"}";
    assert!(second.metrics().await[from_file] > 0.5);
}

#[tokio::test]
async fn a_disk_that_is_full_turns_the_file_off_with_a_warning_and_serving_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.redb");
    let gateway = Gateway::start_with_full_disk(&config(&file, ""), 8192);
    for round in 0..100 {
        let vectors = gateway
            .vectors("tiny", &json!(texts(round * 500, 500)))
            .await;
        assert_eq!(vectors.len(), 500);
        if gateway.log().contains("going on without it") {
            break;
        }
    }
    gateway.wait_for_log("going on without it");
    assert_eq!(gateway.vectors("tiny", &json!(["a", "b"])).await.len(), 2);
}

#[tokio::test]
async fn the_file_is_no_longer_than_its_max_size() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.redb");
    let gateway = Gateway::start(
        &config(&file, "").replace("[cache.file]", "[cache.file]\nmax_size = \"8MiB\""),
    );
    let length = || std::fs::metadata(&file).unwrap().len();
    for round in 0..10 {
        let asked = texts(round * 2000, 2000);
        gateway.vectors("tiny", &json!(asked)).await;
        gateway.wait_until_written().await;
        assert!(length() <= 8 << 20, "round {round}: {}", length());
    }
    let said = gateway.metrics().await["embedgate_cache_file_bytes"];
    assert!((said - length() as f64).abs() < 0.5, "{said}");
}
