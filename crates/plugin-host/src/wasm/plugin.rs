//! A plugin as the gateway has it: its configuration, its guest, and what is said of its failures.

use std::{
    collections::HashMap,
    error, iter,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use embedgate_config::PluginConfig;
use embedgate_request::{Error, ErrorKind, Hook, OpenSpan, Timings};

use super::{
    authenticate::remembered::Remembered, failure::Failure, guest::Guest, line::one_line,
    load::PluginResources,
};
use crate::interface::FileStamp;

/// A failing plugin is logged in full once in this time; in between its failures are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A loaded plugin.
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) config: PluginConfig,
    /// Lengths and times of its files when it was loaded.
    pub(super) stamp: Vec<Option<FileStamp>>,
    pub(super) resources: PluginResources,
    pub(super) guest: Guest,
    pub(super) remembered: Remembered,
    pub(super) failures: Mutex<HashMap<(Hook, &'static str), Failures>>,
}

/// Failures of one kind.
#[derive(Default)]
pub(super) struct Failures {
    n_unsaid: u64,
    said: Option<Instant>,
}

impl Plugin {
    /// Returns true when the plugin's preprocessor is asked about a model. Any of the model's names may stand in the
    /// request and in the plugin's configuration.
    pub(super) fn applies_to(&self, model: &str, names_of: &impl Fn(&str) -> Vec<String>) -> bool {
        let patterns = &self.config.models;
        patterns.is_empty()
            || names_of(model)
                .iter()
                .any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Begins the part of a request's trace in which the plugin is asked.
    pub(super) fn span<'a>(&self, timings: &'a Timings, hook: Hook) -> OpenSpan<'a> {
        timings.span_named(|| format!("plugin {} {}", self.name, hook.name()))
    }

    /// Logs a failure with its cause; of one kind, not each of many.
    pub(super) fn say_failure(&self, hook: Hook, request_id: &str, failure: &Failure) {
        if let Failure::RequestIsOver = failure {
            return;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.entry((hook, failure.kind())).or_default();
        if known.said.is_some_and(|said| said.elapsed() < LOG_EVERY) {
            known.n_unsaid += 1;
            return;
        }
        let more = match std::mem::take(&mut known.n_unsaid) {
            0 => String::new(),
            n => format!(" (and {n} more of its kind since the last line)"),
        };
        known.said = Some(Instant::now());
        drop(failures);
        let causes: Vec<String> =
            iter::successors(Some(failure as &dyn error::Error), |e| e.source())
                .map(ToString::to_string)
                .collect();
        let (plugin, hook, kind) = (&self.name, hook.name(), failure.kind());
        let causes = one_line(&causes.join(": "));
        tracing::error!(
            plugin,
            hook,
            kind,
            id = request_id,
            "plugin {plugin}: {hook} {causes}{more}"
        );
    }
}

/// Makes the error that the client gets when a plugin fails: it does not state the cause.
pub(super) fn unavailable(failure: &Failure, code: &'static str) -> Error {
    if let Failure::RequestIsOver = failure {
        let message = "the request's time was over while a plugin was asked";
        return Error::new(ErrorKind::DeadlineExceeded, message);
    }
    let (message, code) = match failure {
        Failure::Busy(_) => ("too many calls of a plugin are under way", "plugin_busy"),
        _ => ("a plugin that the request needs failed", code),
    };
    Error {
        kind: ErrorKind::Unavailable,
        ..Error::unavailable(message, Duration::from_secs(1))
    }
    .with_code(code)
}
