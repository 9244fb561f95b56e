//! The view that each hook has of a request, and what follows from its answer.

use embedgate_request::Hook;
use serde_json::json;

use super::{Hostile, config};
use crate::testing::TestGateway;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principals_models_lane_and_limit_are_enforced() {
    let mut plugin = config("hostile");
    plugin.hooks = Some(vec![Hook::Authenticate]);
    let gateway = TestGateway::with(|setup| {
        setup.config.auth.mode = None;
        let limits =
            "[limits.one]\nrequests_per_minute = 1\n[limits.tokens]\ntokens_per_minute = 1";
        setup.config.auth = toml::from_str(limits).unwrap();
        setup.config.plugins.insert("hostile".into(), plugin);
    });
    let ask = async |attack: &str| {
        let body = json!({"model": "m", "input": "a"});
        gateway.post(&[("x-attack", attack)], &body).await
    };
    assert_eq!(ask("models m").await.status, 200);
    assert_eq!(ask("models x,m*").await.status, 200);
    let refused = ask("models other").await;
    assert_eq!((refused.status, refused.code()), (403, "model_not_allowed"));
    assert_eq!(ask("limit one").await.status, 200);
    let limited = ask("limit one").await;
    assert_eq!(
        (limited.status, limited.code()),
        (429, "rate_limit_exceeded")
    );
    assert!(limited.headers.contains_key("retry-after"));
    assert_eq!(ask("limit tokens").await.status, 200);
    assert_eq!(ask("limit tokens").await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_is_remembered_for_the_same_head_alone() {
    let hostile = Hostile::new(Hook::Authenticate);
    let calls = || {
        let text = hostile.gateway.gateway.metrics.text();
        let line = "embedgate_plugin_calls_total{plugin=\"hostile\",hook=\"authenticate\"} ";
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.unwrap().parse::<u32>().unwrap()
    };
    for expected in [1, 1, 1] {
        assert_eq!(hostile.attack("ok-valid").await.status, 200);
        assert_eq!(calls(), expected);
    }
    let other = [("x-attack", "ok-valid"), ("x-url", "another")];
    assert_eq!(hostile.request(&other, json!("a")).await.status, 200);
    assert_eq!(calls(), 2);
    hostile.gateway.gateway.plugins.forget_callers();
    assert_eq!(hostile.attack("ok-valid").await.status, 200);
    assert_eq!(calls(), 3);
    // What allows nothing is asked about each time.
    for expected in [4, 5] {
        assert_eq!(hostile.attack("ok").await.status, 200);
        assert_eq!(calls(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_see_texts_where_clients_send_their_token_ids() {
    let bpe = tiktoken_rs::cl100k_base().unwrap();
    let ids = bpe.encode_ordinary("attack:ok");
    let gateway = TestGateway::with(|setup| {
        let mut plugin = config("hostile");
        plugin.hooks = Some(vec![Hook::Preprocess]);
        setup.config.plugins.insert("hostile".into(), plugin);
        let model = embedgate_config::ModelConfig {
            token_ids: Some(embedgate_request::TokenIds::Cl100k),
            ..embedgate_config::ModelConfig::default()
        };
        setup.config.models.insert("m".into(), model);
    });
    let body = json!({"model": "m", "input": [ids]});
    let answer = gateway.post(&[], &body).await;
    assert_eq!(answer.headers.get("x-hostile").unwrap(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_are_told_of_every_request() {
    let mut observer = config("hostile");
    observer.hooks = Some(vec![Hook::Observe]);
    let gateway = TestGateway::with(|setup| {
        setup.config.plugins.insert("hostile".into(), observer);
    });
    assert_eq!(gateway.embed(json!("a")).await.status, 200);
    let calls = "embedgate_plugin_calls_total{plugin=\"hostile\",hook=\"observe\"} 1";
    gateway.gateway.plugins.stop().await;
    assert!(gateway.gateway.metrics.text().contains(calls));
}
