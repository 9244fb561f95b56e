//! Warns of settings that a configuration is allowed to contain but hardly intends.

use std::time::SystemTime;

use embedgate_request::{Hook, NamePattern};

use super::{AuthMode, Config, OnError};

impl Config {
    /// Logs a warning for each.
    pub fn log_warnings(&self) {
        for warning in self.warnings(SystemTime::now()) {
            tracing::warn!("{warning}");
        }
    }

    fn warnings(&self, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, key) in self.auth.keys.iter().enumerate() {
            let shown = key.name.as_deref().unwrap_or("without a name");
            if key.expires.is_some_and(|expires| expires.0 <= now) {
                warnings.push(format!(
                    "auth.keys[{i}]: the key {shown} has expired: nobody comes in with it"
                ));
            }
            for pattern in key.models.iter().flatten() {
                warnings.extend(self.unmatched(pattern, &format!("auth.keys[{i}].models")));
            }
        }
        for (name, plugin) in &self.plugins {
            for pattern in &plugin.models {
                warnings.extend(self.unmatched(pattern, &format!("plugins.{name}.models")));
            }
            let hooks = plugin.hooks.as_deref();
            if plugin.on_error == OnError::Skip && hooks == Some(&[Hook::Authenticate]) {
                warnings.push(format!("plugins.{name}.on_error: \"skip\" is for preprocessors; an authenticator that fails always denies"));
            }
        }
        if let Some(address) = self.server.admin_listen.filter(|at| !at.ip().is_loopback()) {
            warnings.push(format!(
                "server.admin_listen: whoever reaches {address} may reload, without a key: a loopback address keeps it to this machine"
            ));
        }
        if self.auth.mode == Some(AuthMode::Keys) && !self.plugins.is_empty() {
            warnings.push(
                "auth.mode is \"keys\": plugins that authenticate are loaded and never asked"
                    .into(),
            );
        }
        warnings
    }

    /// A plugin may name a model that no client says, but not one that there is not.
    fn unmatched(&self, pattern: &NamePattern, key: &str) -> Option<String> {
        let mut names = self
            .models
            .iter()
            .flat_map(|(name, model)| model.aliases.iter().chain([name]));
        let is_there = names.any(|name| pattern.matches(name));
        (!is_there).then(|| format!("{key}: \"{}\" is the name of no model here", pattern.0))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Environment, *};

    #[test]
    fn what_can_never_happen_is_said() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let warnings = |text: &str| {
            let text = format!(
                "{text}\n[models.m]\npath = \"tests/fixtures/tiny-bge-m3\"\naliases = [\"alias\"]"
            );
            let config = Config::parse(&text, &folder, &Environment::default());
            config
                .unwrap_or_else(|problems| panic!("{problems:?}"))
                .warnings(SystemTime::now())
        };
        let key = "key = \"long-enough\", name = \"old\"";
        let plugin = "[plugins.p]\npath = \"plugins/built/text-normalize.wasm\"";
        let cases = [
            (
                format!("[auth]\nkeys = [{{ {key}, expires = 2020-01-01 }}]"),
                "the key old has expired",
            ),
            (
                format!("[auth]\nkeys = [{{ {key}, models = [\"m*\", \"n*\"] }}]"),
                "\"n*\" is the name of no model",
            ),
            (
                format!("[auth]\nkeys = [{{ {key} }}]\n{plugin}\nmodels = [\"alias\", \"nix\"]"),
                "plugins.p.models: \"nix\"",
            ),
            (
                format!("{plugin}\nhooks = [\"authenticate\"]\non_error = \"skip\""),
                "plugins.p.on_error",
            ),
            (
                format!("[auth]\nmode = \"keys\"\nkeys = [{{ {key} }}]\n{plugin}"),
                "never asked",
            ),
        ];
        for (text, expected) in cases {
            let found = warnings(&text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
        let nothing = format!(
            "[auth]\nkeys = [{{ {key}, expires = 2999-01-01, models = [\"ali*\"] }}]\n{plugin}"
        );
        assert!(warnings(&nothing).is_empty());
    }
}
