//! The host itself: loads components, calls them, and holds them within their bounds.

mod aot;
mod authenticate;
mod bindings;
mod crypto;
mod engine;
mod files;
mod guest;
pub mod harness;
mod host;
mod inspect;
mod kv;
mod load;
mod observe;
mod outbound;
mod preprocess;
mod refusal;
mod reload;
mod snapshot;
mod state;
mod wasi;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use arc_swap::ArcSwap;
use embedgate_config::{OnError, PluginConfig};
use embedgate_request::{
    EmbedRequest, Error, ErrorKind, Hook, Identity, Limits, RequestContext, Route,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

pub use self::inspect::{Inspection, NotAPlugin};
use self::{
    authenticate::{Remembered, Verdict},
    guest::{Failure, Guest},
    load::{Kept, Loader},
    observe::Observer,
    preprocess::Change,
    reload::PluginSet,
};
use crate::words::{FileStamp, Head, PluginSurroundings, SKIPPED, Summary};

/// At the end of the process, observers have this time for what waits.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// A failing plugin is logged in full once in this time; in between its failures are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Reads a component without compiling it.
///
/// # Errors
/// When the file cannot be read, or is no plugin.
pub fn inspect(file: &std::path::Path) -> anyhow::Result<Inspection> {
    let bytes = load::read(file)?;
    Inspection::of(&bytes).with_context(|| file.display().to_string())
}

/// All plugins, in their newest versions. Cheap to ask; a reload swaps the set while calls in flight finish on the old.
pub struct Plugins {
    surroundings: PluginSurroundings,
    set: ArcSwap<PluginSet>,
    observers: ArcSwap<Vec<(Arc<Plugin>, Observer)>>,
    /// The observers' tasks, to wait for at the end.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Made when the first plugin is loaded.
    loader: Mutex<Option<Arc<Loader>>>,
}

/// A loaded plugin.
struct Plugin {
    name: String,
    config: PluginConfig,
    /// Lengths and times of its files when it was loaded.
    stamp: Vec<Option<FileStamp>>,
    kept: Kept,
    guest: Guest,
    remembered: Remembered,
    failures: Mutex<HashMap<(Hook, &'static str), Failures>>,
}

/// Failures of one kind.
#[derive(Default)]
struct Failures {
    n_unsaid: u64,
    said: Option<Instant>,
}

impl Plugins {
    /// None yet.
    #[must_use]
    pub fn new(surroundings: PluginSurroundings) -> Self {
        Self {
            surroundings,
            set: ArcSwap::default(),
            observers: ArcSwap::default(),
            tasks: Mutex::default(),
            loader: Mutex::default(),
        }
    }

    /// Returns true when a plugin authenticates on at least one route.
    #[must_use]
    pub fn has_authenticators(&self) -> bool {
        !self.set.load().authenticators.is_empty()
    }

    /// Returns true when a plugin preprocesses.
    #[must_use]
    pub fn has_preprocessors(&self) -> bool {
        !self.set.load().preprocessors.is_empty()
    }

    /// The instances that may still start: of the plugin's own `max_instances`, and of those that all plugins share.
    #[must_use]
    pub fn free_instances(&self, plugin: &str) -> Option<[usize; 2]> {
        let set = self.set.load();
        let guest = &set.all.get(plugin)?.guest;
        Some([&*guest.places, &guest.engine.places].map(Semaphore::available_permits))
    }

    /// Takes the place of one of a plugin's instances, as a call does, until the value is dropped. None where there is no
    /// such plugin, or no place.
    #[must_use]
    pub fn hold_instance(&self, plugin: &str) -> Option<OwnedSemaphorePermit> {
        let set = self.set.load();
        let places = &set.all.get(plugin)?.guest.places;
        Arc::clone(places).try_acquire_owned().ok()
    }

    /// Forgets who was authenticated before: what a caller may do has changed.
    pub fn forget_callers(&self) {
        for plugin in &self.set.load().authenticators {
            plugin.remembered.clear();
        }
    }

    /// Asks the authenticators of a route in turn, until one knows the caller. None: none does.
    ///
    /// # Errors
    /// The refusal of a plugin; Unavailable where one fails: nobody is let in because of that.
    pub async fn authenticate(
        &self,
        route: Option<Route>,
        limits: &Limits,
        head: Head<'_>,
    ) -> Result<Option<Arc<Identity>>, Error> {
        let set = self.set.load_full();
        for plugin in &set.authenticators {
            let routes = &plugin.config.routes;
            if !routes.is_empty() && route.is_none_or(|route| !routes.contains(&route)) {
                continue;
            }
            let names = &plugin.config.headers;
            let asked = authenticate::authenticate(
                &plugin.guest,
                names,
                Some(&plugin.remembered),
                limits,
                head,
            );
            // Apart, so that requests that no plugin sees need not carry its size.
            match Box::pin(asked).await.0 {
                Ok(Verdict::Principal(identity)) => return Ok(Some(identity)),
                Ok(Verdict::Unknown) => {}
                Ok(Verdict::Refused(error)) => return Err(error),
                Err(failure) => {
                    plugin.say_failure(Hook::Authenticate, head.id, &failure);
                    return Err(unavailable(&failure, "auth_plugin_failed"));
                }
            }
        }
        Ok(None)
    }

    /// Lets the preprocessors change a request in turn. Returns the headers that they add to its response.
    ///
    /// # Errors
    /// The refusal of a plugin; Unavailable where one fails whose configuration says to deny.
    pub async fn preprocess(
        &self,
        ctx: &RequestContext,
        request: &mut EmbedRequest,
        model_names: impl Fn(&str) -> Vec<String>,
    ) -> Result<Vec<(String, String)>, Error> {
        let set = self.set.load_full();
        let mut headers = Vec::new();
        for plugin in &set.preprocessors {
            let model = request.model.as_deref().unwrap_or_default();
            if !plugin.applies_to(model, &model_names) {
                continue;
            }
            let caller = ctx.principal.identity();
            preprocess::check_shown(&plugin.name, plugin.config.native_ids, &request.inputs)?;
            let asked =
                preprocess::preprocess(&plugin.guest, &ctx.id, ctx.deadline, caller, request);
            // Apart, so that requests that no plugin sees need not carry its size.
            match Box::pin(asked).await.0 {
                Ok(Change::Done(added)) => headers.extend(added),
                Ok(Change::Refused(error)) => return Err(error),
                Err(failure) => {
                    plugin.say_failure(Hook::Preprocess, &ctx.id, &failure);
                    let on_error = match failure {
                        Failure::RequestIsOver => OnError::Deny,
                        _ => plugin.config.on_error,
                    };
                    match on_error {
                        OnError::Deny => return Err(unavailable(&failure, "plugin_failed")),
                        OnError::Skip => headers.push((SKIPPED.into(), plugin.name.clone())),
                    }
                }
            }
        }
        Ok(headers)
    }

    /// Returns true when at least one plugin observes finished requests.
    #[must_use]
    pub fn has_observers(&self) -> bool {
        !self.observers.load().is_empty()
    }

    /// Tells the observers of a finished request. Never waits.
    pub fn observe(&self, summary: Summary) {
        let summary = Arc::new(summary);
        for (plugin, observer) in self.observers.load().iter() {
            if !observer.send(Arc::clone(&summary)) {
                plugin.kept.metrics.summaries_dropped.inc();
            }
        }
    }

    /// Ends the observers, once they were told what waits, or after a while.
    pub async fn stop(&self) {
        self.observers.store(Arc::default());
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures_util::future::join_all(tasks);
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("the observers were not told of the last requests: they take too long");
        }
    }
}

/// Makes the error that the client gets when a plugin fails: it does not state the cause.
fn unavailable(failure: &Failure, code: &'static str) -> Error {
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

impl Plugin {
    /// Returns true when the plugin's preprocessor is asked about a model. Any of the model's names may stand in the
    /// request and in the plugin's configuration.
    fn applies_to(&self, model: &str, names_of: &impl Fn(&str) -> Vec<String>) -> bool {
        let patterns = &self.config.models;
        patterns.is_empty()
            || names_of(model)
                .iter()
                .any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Logs a failure with its cause; of one kind, not each of many.
    fn say_failure(&self, hook: Hook, request_id: &str, failure: &Failure) {
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
            std::iter::successors(Some(failure as &dyn std::error::Error), |e| e.source())
                .map(ToString::to_string)
                .collect();
        let (plugin, hook, kind) = (&self.name, hook.name(), failure.kind());
        let causes = host::one_line(&causes.join(": "));
        tracing::error!(
            plugin,
            hook,
            kind,
            id = request_id,
            "plugin {plugin}: {hook} {causes}{more}"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use embedgate_config::KvConfig;
    use embedgate_metrics::Metrics;

    use super::*;
    use crate::words::INIT_TIMEOUT;

    #[tokio::test(flavor = "multi_thread")]
    async fn plugins_do_not_see_each_others_stores() {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/built");
        let mut config = PluginConfig {
            path: built.join("hostile.wasm"),
            hooks: Some(vec![Hook::Preprocess]),
            ..PluginConfig::default()
        };
        config.grants.kv = Some(KvConfig::default());
        let plugins = Plugins::new(PluginSurroundings {
            state_folder: None,
            max_body: 1 << 20,
            metrics: Metrics::new(),
            init_timeout: INIT_TIMEOUT,
        });
        let configs = [("a".to_owned(), config.clone()), ("b".to_owned(), config)].into();
        let failed = plugins.load(&configs).failed;
        assert!(failed.is_empty(), "{failed:?}");
        let all = &plugins.set.load().all;
        let set = all["a"].kept.kv.as_ref().unwrap();
        set.set("x", b"secret".to_vec(), 0, Duration::ZERO).unwrap();
        let other = all["b"].kept.kv.as_ref().unwrap();
        assert_eq!(other.get("x", Duration::ZERO), None);
    }
}
