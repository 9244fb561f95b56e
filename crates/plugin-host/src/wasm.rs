//! The host itself: loads components, calls them, and holds them within their bounds.

mod aot;
mod authenticate;
mod bindings;
mod clock;
mod crypto;
mod engine;
mod exports;
mod failure;
mod files;
mod guest;
pub mod harness;
mod host;
mod inspect;
mod instance;
mod kv;
mod line;
mod load;
mod observe;
mod outbound;
mod plugin;
mod preprocess;
mod refusal;
mod reload;
mod shared;
mod state;
mod wasi;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use embedgate_config::OnError;
use embedgate_request::{EmbedRequest, Error, Hook, Identity, Limits, RequestContext, Route};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

pub use self::inspect::{Inspection, NotAPlugin};
use self::{
    authenticate::{Authenticator, Verdict},
    failure::Failure,
    load::Loader,
    observe::Observer,
    plugin::{Plugin, unavailable},
    preprocess::{Call, Change},
    reload::set::PluginSet,
};
use crate::interface::{PluginContext, RequestHead, SKIPPED, Summary};

/// At the end of the process, observers have this time for what waits.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Reads a component without compiling it.
///
/// # Errors
/// When the file cannot be read, or is no plugin.
pub fn inspect(file: &Path) -> anyhow::Result<Inspection> {
    let bytes = files::read_component(file)?;
    Inspection::of(&bytes).with_context(|| file.display().to_string())
}

/// All plugins, in their newest versions. Cheap to ask; a reload swaps the set while calls in flight finish on the old.
pub struct Plugins {
    context: PluginContext,
    set: ArcSwap<PluginSet>,
    observers: ArcSwap<Vec<(Arc<Plugin>, Observer)>>,
    /// The observers' tasks, to wait for at the end.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Made when the first plugin is loaded.
    loader: Mutex<Option<Arc<Loader>>>,
}

impl Plugins {
    /// None yet.
    #[must_use]
    pub fn new(context: PluginContext) -> Self {
        Self {
            context,
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
        head: RequestHead<'_>,
    ) -> Result<Option<Arc<Identity>>, Error> {
        let set = self.set.load_full();
        for plugin in &set.authenticators {
            let routes = &plugin.config.routes;
            if !routes.is_empty() && route.is_none_or(|route| !routes.contains(&route)) {
                continue;
            }
            let authenticator = Authenticator {
                guest: &plugin.guest,
                headers: &plugin.config.headers,
                remembered: Some(&plugin.remembered),
                limits,
            };
            // Apart, so that requests that no plugin sees need not carry its size.
            let asking = plugin.span(head.timings, Hook::Authenticate);
            let (answer, _) = Box::pin(authenticator.ask(head)).await;
            drop(asking);
            match answer {
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
            preprocess::check_shown(&plugin.name, plugin.config.native_ids, &request.inputs)?;
            let call = Call {
                id: &ctx.id,
                deadline: ctx.deadline,
                caller: ctx.principal.identity(),
            };
            let asked = preprocess::preprocess(&plugin.guest, call, request);
            // Apart, so that requests that no plugin sees need not carry its size.
            let asking = plugin.span(&ctx.timings, Hook::Preprocess);
            let (answer, _) = Box::pin(asked).await;
            drop(asking);
            match answer {
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
                plugin.resources.metrics.summaries_dropped.inc();
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

#[cfg(test)]
mod tests {
    use embedgate_config::{KvConfig, PluginConfig};
    use embedgate_metrics::Metrics;

    use super::*;
    use crate::interface::INIT_TIMEOUT;

    #[tokio::test(flavor = "multi_thread")]
    async fn plugins_do_not_see_each_others_stores() {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/built");
        let mut config = PluginConfig {
            path: built.join("hostile.wasm"),
            hooks: Some(vec![Hook::Preprocess]),
            ..PluginConfig::default()
        };
        config.grants.kv = Some(KvConfig::default());
        let plugins = Plugins::new(PluginContext {
            state_folder: None,
            max_body: 1 << 20,
            metrics: Metrics::new(),
            init_timeout: INIT_TIMEOUT,
        });
        let configs = [("a".to_owned(), config.clone()), ("b".to_owned(), config)].into();
        let failed = plugins.load(&configs).failed;
        assert!(failed.is_empty(), "{failed:?}");
        let all = &plugins.set.load().all;
        let set = all["a"].resources.kv.as_ref().unwrap();
        set.set("x", b"secret".to_vec(), 0, Duration::ZERO).unwrap();
        let other = all["b"].resources.kv.as_ref().unwrap();
        assert_eq!(other.get("x", Duration::ZERO), None);
    }
}
