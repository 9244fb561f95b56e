//! Guests in the whole gateway, over a mock model: what they may, what they may not, and what becomes of the rest.

mod answers;
mod bounds;
mod hooks;
mod imports;
mod refused;
mod reload;

use std::path::{Path, PathBuf};

use embedgate_config::PluginConfig;
use embedgate_plugin_host::Plugins;
use embedgate_request::Hook;
use serde_json::{Value, json};

use super::{TestGateway, requests::Answer};

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

    fn plugins(&self) -> &Plugins {
        &self.gateway.gateway.plugins
    }

    /// Returns the number of the plugin's own metric updates that were dropped.
    fn n_dropped(&self) -> u64 {
        let metrics = self.gateway.gateway.metrics.plugin("hostile");
        metrics.custom_dropped.get()
    }

    /// Counts the calls that failed in this way.
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
