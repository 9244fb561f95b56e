//! The metrics of a running server.

use std::collections::{BTreeMap, BTreeSet};

use embedgate_test_support::{Gateway, client, guest, root, tiny_bge_m3};
use serde_json::json;

/// A configuration with one model, called `m`.
fn one_model(tables: &str) -> String {
    let path = tiny_bge_m3();
    format!("{tables}[models.m]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n")
}

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

/// A row of the table in `docs/metrics.md`: the kind and the labels of a metric, by its name without `_total`.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let name = name.strip_suffix("_total").unwrap_or(name).to_owned();
        let labels = cells[3].split(", ").filter(|label| !label.is_empty());
        (
            name,
            (cells[2].to_owned(), labels.map(str::to_owned).collect()),
        )
    };
    rows.map(row).collect()
}

#[test]
fn the_table_of_metrics_names_those_of_the_code() {
    let folder = root().join("crates/metrics/src");
    let mut named = BTreeSet::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let code = text.split("#[cfg(test)]").next().unwrap();
        let calls = code.split("add(").skip(1);
        let names = calls.filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next());
        named.extend(names.map(str::to_owned));
    }
    assert!(named.len() > 30, "{named:?}");
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(named, documented);
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
    let documented = documented();
    let files = ["docs/grafana.json", "examples/monitoring/alerts.yml"];
    let mut asked = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in text.split(|c| !is_name(c)) {
            if !word.starts_with("embedgate_") && !word.starts_with("process_") {
                continue;
            }
            let ends = ["_total", "_bucket", "_sum", "_count"];
            let name = ends.iter().find_map(|end| word.strip_suffix(end));
            let name = name.unwrap_or(word);
            assert!(documented.contains_key(name), "{file}: {word}");
            let is_counter = documented[name].0 == "counter";
            assert_eq!(word.ends_with("_total"), is_counter, "{file}: {word}");
            asked.insert(name.to_owned());
        }
    }
    assert!(asked.len() > 20, "{asked:?}");
}

#[tokio::test]
async fn the_table_of_metrics_has_the_kinds_and_labels_that_are_told() {
    let gateway = Gateway::start(&one_model("[auth]\nmode = \"none\"\n"));
    let body = json!({"model": "m", "input": "text"});
    assert_eq!(gateway.ask("/v1/embeddings", &body).await.status, 200);
    let wrong = json!({"model": "m", "input": 5});
    assert_eq!(gateway.ask("/v1/embeddings", &wrong).await.status, 400);
    assert!(kinds_as_documented(&gateway).await.len() > 20);
}

#[tokio::test]
async fn the_table_of_metrics_has_those_of_plugins() {
    let plugin = guest("text-normalize");
    let more = format!("[auth]\nmode = \"none\"\n[plugins.normalize]\npath = {plugin:?}\n");
    let gateway = Gateway::start(&one_model(&more));
    let body = json!({"model": "m", "input": "text"});
    assert_eq!(gateway.ask("/v1/embeddings", &body).await.status, 200);
    let kinds = kinds_as_documented(&gateway).await;
    for name in [
        "calls",
        "call_duration_seconds",
        "memory_peak_bytes",
        "loads",
    ] {
        let name = format!("embedgate_plugin_{name}");
        assert!(kinds.contains_key(&name), "{name}: {kinds:?}");
    }
}

/// The kinds of the metrics that a gateway tells, all of them and their labels as they are documented.
async fn kinds_as_documented(gateway: &Gateway) -> BTreeMap<String, String> {
    let text = client()
        .get(format!("{}/metrics", gateway.url))
        .send()
        .await
        .unwrap();
    let text = text.text().await.unwrap();
    let documented = documented();
    let mut kinds = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        {
            assert_eq!(documented[name].0, kind, "{name}");
            kinds.insert(name.to_owned(), kind.to_owned());
        }
        let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let ends = ["_total", "_bucket", "_sum", "_count"];
        let name = ends
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        let labels = rest
            .split("=\"")
            .filter_map(|part| part.rsplit([',', '{', '"']).next());
        let labels: BTreeSet<String> = labels
            .filter(|label| {
                !label.is_empty() && label.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            })
            .filter(|label| *label != "le")
            .map(str::to_owned)
            .collect();
        assert!(
            labels.is_subset(&documented[name].1),
            "{line}: {:?}",
            documented[name].1
        );
    }
    kinds
}

#[tokio::test]
async fn a_request_is_told_where_its_time_went_where_it_asks_and_a_slow_one_is_logged() {
    let gateway = Gateway::start(&one_model(
        "[auth]\nmode = \"none\"\n[log]\nslow = \"1ms\"\n",
    ));
    let text = "a text of some length ".repeat(300);
    let send = |asks: bool| {
        let request = client().post(format!("{}/v1/embeddings", gateway.url));
        let request = request.json(&json!({"model": "m", "input": [text, "b"]}));
        match asks {
            true => request.header("x-embedgate-timing", "true").send(),
            false => request.send(),
        }
    };
    assert!(
        !send(false)
            .await
            .unwrap()
            .headers()
            .contains_key("server-timing")
    );
    let answer = send(true).await.unwrap();
    let timing = answer.headers()["server-timing"].to_str().unwrap();
    assert!(
        timing.starts_with("cache;desc=\"2 of 2\", tokenize;dur=0.00, queue;dur=0.00"),
        "{timing}"
    );
    gateway.logged("ms in its batch", 1).await;
    let log = gateway.log();
    assert!(log.contains("/v1/embeddings was slow: "), "{log}");
}
