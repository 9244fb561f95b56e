//! Guests that take time, memory, or the processor: what ends them, and what they leave.

use embedgate_config::{InstanceConfig, KvConfig, Period, PluginConfig};
use embedgate_request::Hook;
use serde_json::json;

use super::{Hostile, config};
use crate::testing::{TestGateway, requests::Answer};

const BOTH: [Hook; 2] = [Hook::Authenticate, Hook::Preprocess];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_take_too_long_are_stopped() {
    for hook in BOTH {
        let hostile = Hostile::with(hook, |config| config.timeout = Period::milliseconds(20));
        hostile.contains(&["loop"], "timeout").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_take_too_much_memory_are_stopped() {
    for hook in BOTH {
        let hostile = Hostile::with(hook, |config| config.timeout = Period::seconds(10));
        hostile
            .contains(&["memory-bomb", "huge-result"], "memory")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_trap_end_their_own_request_alone() {
    for hook in BOTH {
        let hostile = Hostile::with(hook, |config| {
            config.timeout = Period::seconds(10);
            config.grants.kv = Some(KvConfig::default());
        });
        let attacks = [
            "recursion",
            "trap",
            "panic",
            "out-of-bounds",
            "random-huge",
            "loop-in-host-call",
            "kv-spam",
        ];
        hostile.contains(&attacks, "trap").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_guest_outlives_a_call_unless_it_is_used_again() {
    let count = |answer: &Answer| answer.headers["x-count"].to_str().unwrap().to_owned();
    let hostile = Hostile::new(Hook::Preprocess);
    for _ in 0..3 {
        assert_eq!(count(&hostile.attack("count").await), "1");
    }
    let reused = Hostile::with(Hook::Preprocess, |config| {
        config.instance = InstanceConfig::Reuse(2.try_into().unwrap());
    });
    let mut counts = Vec::new();
    for _ in 0..4 {
        counts.push(count(&reused.attack("count").await));
    }
    // The first instance has had its init, which counts as a call.
    assert_eq!(counts, ["1", "1", "2", "1"]);
    // One that trapped is not used again.
    assert_eq!(reused.attack("trap").await.status, 503);
    assert_eq!(count(&reused.attack("count").await), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_time_is_no_failure_of_the_plugin() {
    let hostile = Hostile::with(Hook::Authenticate, |config| {
        config.timeout = Period::seconds(10)
    });
    let headers = [("x-attack", "loop"), ("x-request-timeout-ms", "20")];
    let answer = hostile.request(&headers, json!("a")).await;
    assert_eq!((answer.status, answer.code()), (504, "deadline_exceeded"));
    assert_eq!(hostile.n_errors("timeout"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_beyond_the_places_waits_and_then_is_refused_as_busy() {
    let hostile = Hostile::with(Hook::Preprocess, |config| {
        config.timeout = Period::milliseconds(200);
        config.max_instances = 1;
    });
    let held = hostile.plugins().hold_instance("hostile").unwrap();
    let answer = hostile.attack("ok").await;
    assert_eq!((answer.status, answer.code()), (503, "plugin_busy"));
    assert!(answer.headers.contains_key("retry-after"));
    drop(held);
    assert_eq!(hostile.attack("ok").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_leave_no_instance_and_no_place_taken() {
    let plugin = |hook, order| PluginConfig {
        hooks: Some(vec![hook]),
        order,
        ..config("hostile")
    };
    let gateway = TestGateway::with(|setup| {
        setup.config.auth.mode = None;
        setup.config.plugins = [
            ("a".into(), plugin(Hook::Authenticate, 0)),
            ("b".into(), plugin(Hook::Preprocess, 1)),
            ("c".into(), plugin(Hook::Preprocess, 2)),
        ]
        .into();
    });
    let body = json!({"model": "m", "input": "attack:ok"});
    for _ in 0..500 {
        let answer = gateway.post(&[("x-attack", "ok")], &body).await;
        assert_eq!(answer.status, 200);
    }
    for plugin in ["a", "b", "c"] {
        let free = gateway.gateway.plugins.free_instances(plugin);
        assert_eq!(free, Some([64, embedgate_config::MOST_INSTANCES]));
    }
}
