//! Compares two configurations, for a reload: what changes while the gateway serves, and what needs a restart.

use std::collections::BTreeMap;

use super::{AuthConfig, Config, ServerConfig};

impl Config {
    /// Returns a copy of this configuration with the settings of `other` that can be changed while the gateway serves.
    #[must_use]
    pub fn with_live_settings_of(&self, other: &Self) -> Self {
        Self {
            default_model: other.default_model.clone(),
            unknown_model: other.unknown_model,
            server: ServerConfig {
                reload_on_change: other.server.reload_on_change,
                max_model_memory: other.server.max_model_memory,
                ..self.server.clone()
            },
            auth: other.auth.clone(),
            cache: self.cache.with_sizes_of(&other.cache),
            models: other.models.clone(),
            plugins: other.plugins.clone(),
            ..self.clone()
        }
    }

    /// The keys whose values are others here, such as `server.listen`; nothing of secrets, models and plugins.
    #[must_use]
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let all = |config: &Self| {
            let config = Self {
                auth: AuthConfig::default(),
                models: BTreeMap::new(),
                plugins: BTreeMap::new(),
                ..config.clone()
            };
            toml::Table::try_from(config).unwrap_or_default()
        };
        let mut found = Vec::new();
        differing(
            &toml::Value::Table(all(self)),
            &toml::Value::Table(all(other)),
            "",
            &mut found,
        );
        // Tokens are shown as stars, whatever they are.
        if self.hub != other.hub && !found.iter().any(|key| key.starts_with("hub.")) {
            found.push("hub".into());
        }
        if self.telemetry != other.telemetry
            && !found.iter().any(|key| key.starts_with("telemetry."))
        {
            found.push("telemetry.headers".into());
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Adds the keys below `at` whose values are others, or are in one of the two alone.
fn differing(one: &toml::Value, other: &toml::Value, at: &str, found: &mut Vec<String>) {
    let (toml::Value::Table(left), toml::Value::Table(right)) = (one, other) else {
        if one != other {
            found.push(at.to_owned());
        }
        return;
    };
    for key in left.keys().chain(right.keys()) {
        let below = match at {
            "" => key.clone(),
            at => format!("{at}.{key}"),
        };
        match (left.get(key), right.get(key)) {
            (Some(one), Some(other)) => differing(one, other, &below, found),
            _ => found.push(below),
        }
    }
}
