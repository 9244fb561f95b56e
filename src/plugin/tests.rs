//! Guests in the whole gateway, over a mock model: what they may, what they may not, and what becomes of the rest.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    config::{AuthConfig, AuthMode, HttpConfig, InstanceConfig, KvConfig, Period},
    testing::{Answer, TestGateway},
};

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("plugins/built")
        .join(format!("{name}.wasm"))
}

fn config(name: &str) -> PluginConfig {
    PluginConfig {
        path: built(name),
        headers: ["x-attack", "x-url"].map(str::to_owned).into(),
        ..PluginConfig::default()
    }
}

/// A gateway with the guest that attacks, as authenticator alone or as preprocessor alone.
struct Hostile {
    gateway: TestGateway,
    hook: Hook,
}

impl Hostile {
    fn with(hook: Hook, change: impl FnOnce(&mut PluginConfig)) -> Self {
        let mut hostile = PluginConfig {
            hooks: Some(vec![hook]),
            ..config("hostile")
        };
        change(&mut hostile);
        let gateway = TestGateway::with(|setup| {
            if hook == Hook::Authenticate {
                setup.config.auth.mode = None;
            }
            setup.config.plugins.insert("hostile".into(), hostile);
        });
        Self { gateway, hook }
    }

    fn new(hook: Hook) -> Self {
        Self::with(hook, |_| {})
    }

    async fn attack(&self, attack: &str) -> Answer {
        match self.hook {
            Hook::Authenticate => self.request(&[("x-attack", attack)], json!("a")).await,
            _ => {
                self.request(&[], json!([format!("attack:{attack}"), "b"]))
                    .await
            }
        }
    }

    async fn request(&self, headers: &[(&str, &str)], input: Value) -> Answer {
        let body = json!({"model": "m", "input": input});
        self.gateway.post(headers, &body).await
    }

    /// How many calls failed in this way.
    fn n_errors(&self, kind: &str) -> usize {
        let text = self.gateway.gateway.metrics.text();
        let line = format!(
            "embedgate_plugin_errors_total{{plugin=\"hostile\",hook=\"{}\",kind=\"{kind}\"}} ",
            self.hook.name()
        );
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        found.map_or(0, |n| n.parse().unwrap())
    }

    /// Asserts that each attack ends its own call in this way, and that the next request is served.
    async fn contains(&self, attacks: &[&str], kind: &str) {
        for attack in attacks {
            let before = self.n_errors(kind);
            let answer = self.attack(attack).await;
            let code = match self.hook {
                Hook::Authenticate => "auth_plugin_failed",
                _ => "plugin_failed",
            };
            let hook = self.hook;
            assert_eq!(
                (answer.status, answer.code()),
                (503, code),
                "{hook:?} {attack}"
            );
            assert_eq!(self.n_errors(kind), before + 1, "{hook:?} {attack}");
            assert_eq!(
                self.attack("ok").await.status,
                200,
                "{hook:?} after {attack}"
            );
        }
    }
}

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
async fn answers_of_authenticators_that_break_the_rules_let_nobody_in() {
    let hostile = Hostile::new(Hook::Authenticate);
    let attacks = [
        "bad-status 200",
        "bad-status 0",
        "bad-status 399",
        "bad-status 600",
        "bad-status 65535",
        "bad-header set-cookie",
        "bad-header content-length",
        "bad-header x-embedgate-lane",
        "bad-header x-request-id",
        "bad-header-crlf",
        "bad-value-crlf",
        "many-headers",
        "long-code",
        "empty-code",
        "bad-code",
        "empty-subject",
        "long-subject",
        "control-subject",
        "huge-attributes",
        "many-attributes",
        "unknown-limit",
    ];
    hostile.contains(&attacks, "output").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_preprocessors_that_break_the_rules_change_nothing() {
    let hostile = Hostile::new(Hook::Preprocess);
    let attacks = [
        "wrong-count",
        "no-texts",
        "bad-index",
        "duplicate-index",
        "bad-response-header set-cookie",
        "bad-response-header x-embedgate-x",
        "bad-response-header-crlf",
        "bad-response-value-crlf",
        "zero-dimensions",
        "empty-model",
        "bad-status 302",
        "bad-code",
    ];
    hostile.contains(&attacks, "output").await;
    // A million texts for two: over the memory or the number, as the limit is.
    assert_eq!(hostile.attack("many-small-results").await.status, 503);
    // What is legal and wrong is the client's to read.
    let answer = hostile.attack("huge-dimensions").await;
    assert_eq!(
        (answer.status, answer.message().contains("4294967295")),
        (400, true)
    );
    assert_eq!(
        hostile.attack("model other").await.code(),
        "model_not_found"
    );
}
