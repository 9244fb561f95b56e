//! Checks a plugin's table.

use super::{MOST_INSTANCES, PluginConfig, grants::allowed_url};
use crate::{ByteSize, Problem, problem::Report, sha256::is_sha256};

/// The largest allowed size of a plugin's linear memories: the room that every instance's place in the pool has.
const MOST_MEMORY: ByteSize = ByteSize::mib(256);

impl PluginConfig {
    /// Reports everything that is wrong with the table of the plugin `name`.
    pub(crate) fn check(&self, name: &str, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: String| {
            problems.push(Problem::new(format!("plugins.{name}.{key}"), message));
        };
        if !is_name(name) {
            problem(
                "",
                "the name of a plugin is 1 to 64 of a-z, 0-9, - and _: it is a label of metrics"
                    .into(),
            );
        }
        self.check_component(&mut problem);
        self.check_headers(&mut problem);
        self.check_metrics(&mut problem);
        self.check_settings(&mut problem);
        self.check_http(&mut problem);
        if let Some(message) = self.timeout.out_of_range() {
            problem("timeout", message);
        }
    }

    fn check_component(&self, problem: &mut Report<'_>) {
        if self.path.as_os_str().is_empty() {
            problem("path", "is missing: the component's .wasm file".into());
        }
        if self.sha256.as_ref().is_some_and(|hash| !is_sha256(hash)) {
            let message = "must be 64 hex digits: `embedgate plugin pin` writes it";
            problem("sha256", message.into());
        }
        if self.hooks.as_ref().is_some_and(Vec::is_empty) {
            let message =
                "is empty, so the plugin is never asked: name hooks, or leave it out for all";
            problem("hooks", message.into());
        }
        if !(1..=MOST_INSTANCES).contains(&self.max_instances) {
            let message = format!("must be 1 to {MOST_INSTANCES}, got {}", self.max_instances);
            problem("max_instances", message);
        }
        if self.max_memory < ByteSize::mib(1) || self.max_memory > MOST_MEMORY {
            let message = format!("{} is out of range: 1MiB to {MOST_MEMORY}", self.max_memory);
            problem("max_memory", message);
        }
    }

    fn check_headers(&self, problem: &mut Report<'_>) {
        for (i, header) in self.headers.iter().enumerate() {
            let is_header = header
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
            if header.is_empty() || !is_header {
                let message =
                    format!("\"{header}\" is no header name in lower case, such as \"x-api-key\"");
                problem(&format!("headers[{i}]"), message);
            }
        }
    }

    fn check_metrics(&self, problem: &mut Report<'_>) {
        for name in &self.grants.metrics {
            if !is_name(name) {
                let message =
                    format!("\"{name}\" is no name of a metric: 1 to 64 of a-z, 0-9, - and _");
                problem("grants.metrics", message);
            }
        }
    }

    fn check_settings(&self, problem: &mut Report<'_>) {
        for name in self.settings_files.keys() {
            if self.settings.contains_key(name) {
                let message = "is a name in settings too: take one of them away";
                problem(&format!("settings_files.{name}"), message.into());
            }
        }
    }

    fn check_http(&self, problem: &mut Report<'_>) {
        if let Some(http) = &self.grants.http {
            for (i, url) in http.allow.iter().enumerate() {
                if let Err(message) = allowed_url(url) {
                    problem(&format!("grants.http.allow[{i}]"), message);
                }
            }
            if http.allow.is_empty() {
                let message = "is empty: name the URLs that the plugin may ask";
                problem("grants.http.allow", message.into());
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
}
