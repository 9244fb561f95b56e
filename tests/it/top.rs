//! `embedgate top` shows what `/metrics` counts.

use embedgate_test_support::{Gateway, embedgate, run, tiny_bge_m3};

fn config(more: &str) -> String {
    let path = tiny_bge_m3();
    format!(
        "{more}\n[auth]\nkeys = [\"a-key-of-somebody\"]\n[models.m]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn top_prints_the_figures_of_a_server_once() {
    let gateway = Gateway::start(&config(""));
    let here = ["top", "--once", "--every", "100ms", "--url", &gateway.url];
    let (code, said, errors) = run(embedgate().args(here));
    assert_eq!(code, Some(0), "{errors}");
    for words in ["state             ready", "candle cpu f32", "connections"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    // Nothing was asked: there are no times, and nothing came from the cache.
    assert!(said.contains("p50, p95, p99     -, -, -"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn top_says_what_it_needs() {
    let gateway = Gateway::start(&config("[server]\npublic_names = false"));
    let top = |more: &[&str], key: Option<&str>| {
        let mut command = embedgate();
        command.arg("top").args(more);
        if let Some(key) = key {
            command.env("EMBEDGATE_KEY", key);
        }
        run(&mut command)
    };
    let here = ["--once", "--every", "100ms", "--url", &gateway.url];
    let (code, _, errors) = top(&here, None);
    assert_eq!(code, Some(1));
    assert!(errors.contains("EMBEDGATE_KEY"), "{errors}");
    let (code, said, errors) = top(&here, Some("a-key-of-somebody"));
    assert_eq!(code, Some(0), "{errors}");
    // Models are seen where /readyz does not name them.
    assert!(said.contains("candle cpu f32"), "{said}");
    // A pipe is no terminal.
    let (_, _, errors) = top(&["--url", &gateway.url], Some("a-key-of-somebody"));
    assert!(errors.contains("--once"), "{errors}");
    let (_, _, errors) = top(&["--every", "1ms"], None);
    assert!(errors.contains("100ms to 1m"), "{errors}");
    let (_, _, errors) = top(&["--once", "--url", "http://127.0.0.1:1"], None);
    assert!(errors.contains("cannot be reached"), "{errors}");
}
