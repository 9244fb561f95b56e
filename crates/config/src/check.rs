//! Checks the whole configuration: each table, and the conditions that concern more than one.

use std::collections::BTreeMap;

use embedgate_request::Hook;

use super::{Config, KeySecret, Period, PluginConfig, Problem, UnknownModel, auth::Authenticators};

impl Config {
    /// Checks all tables, including the conditions that concern more than one table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        self.server.check(problems);
        for (name, plugin) in &self.plugins {
            plugin.check(name, problems);
        }
        self.auth.check(self.authenticators(), problems);
        let has_client_ca = self
            .server
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some());
        for (i, key) in self.auth.keys.iter().enumerate() {
            if matches!(key.secret, KeySecret::Certificate(_)) && !has_client_ca {
                let message = "no client is asked for a certificate: set server.tls.client_ca";
                problems.push(Problem::new(format!("auth.keys[{i}].certificate"), message));
            }
        }
        self.cache.check(problems);
        self.hub.check(problems);
        self.telemetry.check(problems);
        self.usage.check(problems);
        if let Some(message) = self.log.slow.and_then(Period::out_of_range) {
            problems.push(Problem::new("log.slow", message));
        }
        if self.models.is_empty() && problems.is_empty() {
            let hint =
                "no model is configured: add [models.NAME] with path = \"folder of the model\"";
            problems.push(Problem::new("models", hint));
        }
        for (name, model) in &self.models {
            model.check(name, &self.server, problems);
        }
        self.check_names(problems);
        self.check_query_models(problems);
    }

    fn authenticators(&self) -> Authenticators {
        let said = |plugin: &PluginConfig| match &plugin.hooks {
            None => Authenticators::Perhaps,
            Some(hooks) if hooks.contains(&Hook::Authenticate) => Authenticators::Some,
            Some(_) => Authenticators::None,
        };
        let all = self.plugins.values().map(said);
        all.max().unwrap_or(Authenticators::None)
    }

    /// A model for queries is another one that is configured, and serves them itself.
    fn check_query_models(&self, problems: &mut Vec<Problem>) {
        for (name, model) in &self.models {
            let Some(other) = &model.query_model else {
                continue;
            };
            let message = match self.models.get(other) {
                _ if other == name => "is the model itself: leave it out".to_owned(),
                Some(found) if found.query_model.is_none() => continue,
                Some(_) => {
                    format!("is \"{other}\", which has a query_model of its own: name that one")
                }
                None => {
                    let names: Vec<_> = self.models.keys().map(String::as_str).collect();
                    format!(
                        "there is no model \"{other}\", choose one of: {}",
                        names.join(", ")
                    )
                }
            };
            problems.push(Problem::new(format!("models.{name}.query_model"), message));
        }
    }

    fn check_names(&self, problems: &mut Vec<Problem>) {
        let mut owners: BTreeMap<&str, &str> = self
            .models
            .keys()
            .map(|name| (name.as_str(), name.as_str()))
            .collect();
        for (name, model) in &self.models {
            for alias in &model.aliases {
                if let Some(owner) = owners.insert(alias, name) {
                    let message = format!(
                        "alias \"{alias}\" is a name of model \"{owner}\" already: choose another"
                    );
                    problems.push(Problem::new(format!("models.{name}.aliases"), message));
                }
            }
        }
        if let Some(default) = self
            .default_model
            .as_deref()
            .filter(|name| !owners.contains_key(name))
        {
            let names: Vec<_> = self.models.keys().cloned().collect();
            let message = format!(
                "there is no model \"{default}\", choose one of: {}",
                names.join(", ")
            );
            problems.push(Problem::new("default_model", message));
        }
        if self.unknown_model == UnknownModel::Default && self.default_model().is_none() {
            let message =
                "is \"default\", and there are several models: say which one by default_model";
            problems.push(Problem::new("unknown_model", message));
        }
    }
}
