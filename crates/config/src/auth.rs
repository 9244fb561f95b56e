//! `[auth]`.

pub(super) mod key;

use std::collections::{BTreeMap, BTreeSet};

use embedgate_request::{LimitConfig, Route};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::key::{KeyConfig, KeySecret};
use super::Problem;

/// The configuration of authentication: the callers that may use the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// `"keys"`: requests need one of `auth.keys`, and no plugin is asked; `"none"`: anybody may use the server.
    /// Without it: by what there is, keys and then plugins that authenticate; where there are neither, the
    /// configuration is refused.
    pub mode: Option<AuthMode>,
    /// Keys that clients send as `"Authorization: Bearer KEY"`: at least 8 visible ASCII characters each. `embedgate
    /// key new` prints a new key once, and its hash for this file. A key can be a table, with key, hash or certificate,
    /// and name, models, limit, lane, expires and admin.
    pub keys: Vec<KeyConfig>,
    /// Routes that anybody may use, for clients that send no key: `"embeddings"`, `"models"`, `"rerank"`, `"tei"`
    /// (`/embed` and its neighbours), `"ollama"` (`/api/...`), `"cohere"` (`/v2/embed`).
    pub open_routes: Vec<Route>,
    /// The limits on a principal's use, by the name that keys and plugins state.
    pub limits: BTreeMap<String, LimitConfig>,
}

/// The method that tells callers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By a key.
    Keys,
    /// Not at all.
    None,
}

/// The presence of plugins that authenticate, as far as the configuration states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Authenticators {
    None,
    /// Only the components know.
    Perhaps,
    Some,
}

impl AuthConfig {
    /// Returns true when every caller is refused: authentication is on, and there is no key and no plugin that
    /// authenticates.
    #[must_use]
    pub fn lets_nobody_in(&self, has_authenticators: bool) -> bool {
        self.mode != Some(AuthMode::None) && self.keys.is_empty() && !has_authenticators
    }

    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, plugins: Authenticators, problems: &mut Vec<Problem>) {
        // What could not be read is missing here: that there is no key is not the problem then.
        if problems
            .iter()
            .any(|problem| problem.key.starts_with("auth"))
        {
            return;
        }
        self.check_mode(plugins, problems);
        for (name, limit) in &self.limits {
            if *limit == LimitConfig::default() {
                let message = "limits nothing: set requests_per_minute or tokens_per_minute";
                problems.push(Problem::new(format!("auth.limits.{name}"), message));
            }
        }
        let mut seen = BTreeSet::new();
        for (i, key) in self.keys.iter().enumerate() {
            let mut problem = |message: &str| {
                problems.push(Problem::new(format!("auth.keys[{i}]"), message));
            };
            let identity = match &key.secret {
                KeySecret::Key(key) => {
                    let key = key.expose();
                    if key.len() < 8 || !key.bytes().all(|b| b.is_ascii_graphic()) {
                        problem(
                            "a key has at least 8 characters, all visible ASCII without spaces",
                        );
                    }
                    key.to_owned()
                }
                KeySecret::Hash(hash) => hash.id().to_owned(),
                KeySecret::Certificate(name) => {
                    if name.trim().is_empty() {
                        problem(
                            "certificate is empty: write the name that the client's certificate is for",
                        );
                    }
                    format!("certificate {name}")
                }
            };
            if !seen.insert(identity) {
                problem("this key is there twice: remove one");
            }
            if key
                .name
                .as_deref()
                .is_some_and(|name| name.trim().is_empty())
            {
                problem("name is empty: leave it out, or say who uses the key");
            }
            if let Some(limit) = &key.limit
                && !self.limits.contains_key(limit)
            {
                problem(&format!(
                    "there is no limit \"{limit}\": add [auth.limits.{limit}]"
                ));
            }
        }
    }

    fn check_mode(&self, plugins: Authenticators, problems: &mut Vec<Problem>) {
        let is_closed = plugins != Authenticators::None || !self.keys.is_empty();
        match self.mode {
            None if !is_closed => problems.push(Problem::new(
                "auth",
                "who may use the server is not said: set keys = [\"${EMBEDGATE_KEY}\"], or mode = \"none\" to let anybody in",
            )),
            Some(AuthMode::Keys) if self.keys.is_empty() => {
                problems.push(Problem::new("auth.keys", "mode is \"keys\" and there is no key: add one"));
            }
            Some(AuthMode::None) if !self.keys.is_empty() => {
                problems.push(Problem::new("auth.keys", "mode is \"none\" and there are keys: remove one of the two"));
            }
            Some(AuthMode::Keys) if plugins == Authenticators::Some => {
                let message = "is \"keys\", so that no plugin is asked, and a plugin authenticates: leave mode out to ask both";
                problems.push(Problem::new("auth.mode", message));
            }
            Some(AuthMode::None) if plugins == Authenticators::Some => {
                let message = "is \"none\", and a plugin authenticates: remove one of the two, or name the plugin's other hooks in its hooks";
                problems.push(Problem::new("auth.mode", message));
            }
            _ => {}
        }
    }
}
