//! WebAssembly plugins: who the caller is, what of a request changes, and who is told of it.
//!
//! A plugin is a component after `plugins/wit/v0.1`. It runs in an instance of its own for every call, within bounds of time and
//! memory, and reaches nothing but what its configuration grants. Only this module knows wasmtime. Without plugins there
//! is no engine.

mod aot;
mod authenticate;
mod bindings;
mod crypto;
mod engine;
mod guest;
mod host;
mod inspect;
mod kv;
mod load;
mod observe;
mod outbound;
mod preprocess;
mod refusal;
mod snapshot;
mod state;
mod wasi;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use arc_swap::ArcSwap;

use self::{
    aot::AotCache,
    authenticate::{Remembered, Verdict},
    engine::GuestEngine,
    guest::{Failure, Guest},
    kv::Store,
    load::{Kept, Loader},
    observe::Observer,
    preprocess::Change,
    state::Clock,
};
pub use self::{
    authenticate::{Head, Headers},
    inspect::{Inspection, NotAPlugin},
    observe::Summary,
};
use crate::{
    config::{Hook, OnError, PluginConfig},
    error::{Error, ErrorKind},
    limits::Limits,
    metrics::Metrics,
    request::{EmbedRequest, Identity, RequestContext, Route},
};

/// Added to the answer of a request whose preprocessor failed and was skipped.
const SKIPPED: &str = "x-embedgate-plugin-skipped";
/// A failing plugin is logged in full once in this time; in between its failures are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Checks a URL of `grants.http.allow`.
///
/// # Errors
/// What is wrong with it.
pub fn check_allowed_url(url: &str) -> Result<(), String> {
    outbound::allowed_url(url).map(drop)
}

/// What plugins need of the gateway.
#[derive(Clone)]
pub struct PluginSurroundings {
    /// Folder for compiled plugins; none keeps none.
    pub state_folder: Option<PathBuf>,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// What is counted.
    pub metrics: Metrics,
}

/// All plugins, in their newest versions. Cheap to ask; a reload swaps the set while calls in flight finish on the old.
pub struct Plugins {
    surroundings: PluginSurroundings,
    set: ArcSwap<PluginSet>,
    /// Made when the first plugin is loaded.
    loader: Mutex<Option<Arc<Loader>>>,
}

/// The plugins of one moment, by hook, in the order they are asked.
#[derive(Default)]
struct PluginSet {
    all: BTreeMap<String, Arc<Plugin>>,
    authenticators: Vec<Arc<Plugin>>,
    preprocessors: Vec<Arc<Plugin>>,
    observers: Vec<(Arc<Plugin>, Observer)>,
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
    failures: Failures,
}

type FileStamp = (u64, std::time::SystemTime);

#[derive(Default)]
struct Failures {
    n_unsaid: AtomicU64,
    said: Mutex<Option<Instant>>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Plugins in a new version.
    pub loaded: Vec<String>,
    /// Plugins that are gone.
    pub removed: Vec<String>,
    /// Plugins whose new version cannot be loaded, and why; their old one, if any, still serves.
    pub failed: Vec<String>,
}

impl Plugins {
    /// None yet.
    #[must_use]
    pub fn new(surroundings: PluginSurroundings) -> Self {
        Self {
            surroundings,
            set: ArcSwap::default(),
            loader: Mutex::default(),
        }
    }

    /// Loads what is new or has changed, and drops what is not configured any more. Blocks.
    ///
    /// A plugin that cannot be loaded keeps its old version, and is in [`Reloaded::failed`].
    pub fn load(&self, configs: &BTreeMap<String, PluginConfig>) -> Reloaded {
        let before = self.set.load_full();
        let mut reloaded = Reloaded::default();
        let mut all = BTreeMap::new();
        for (name, config) in configs {
            let old = before.all.get(name);
            let stamp = stamp(config);
            if let Some(old) = old.filter(|old| old.config == *config && old.stamp == stamp) {
                all.insert(name.clone(), Arc::clone(old));
                continue;
            }
            match self.load_one(name, config, stamp, old) {
                Ok(plugin) => {
                    reloaded.loaded.push(name.clone());
                    all.insert(name.clone(), Arc::new(plugin));
                }
                Err(error) => {
                    reloaded.failed.push(format!("plugins.{name}: {error:#}"));
                    all.extend(old.map(|old| (name.clone(), Arc::clone(old))));
                }
            }
        }
        let is_gone = |name: &&String| !configs.contains_key(*name);
        reloaded.removed = before.all.keys().filter(is_gone).cloned().collect();
        if !reloaded.loaded.is_empty() || !reloaded.removed.is_empty() {
            self.set.store(Arc::new(PluginSet::new(all)));
        }
        reloaded
    }

    fn load_one(
        &self,
        name: &str,
        config: &PluginConfig,
        stamp: Vec<Option<FileStamp>>,
        old: Option<&Arc<Plugin>>,
    ) -> anyhow::Result<Plugin> {
        let started = Instant::now();
        let metrics = match old {
            Some(old) => old.kept.metrics.clone(),
            None => self.surroundings.metrics.plugin(name),
        };
        // What is stored outlives a plugin's version, as long as its bounds are the same.
        let old_kv = old.and_then(|old| old.kept.kv.clone());
        let kv = config.grants.kv.map(|config| {
            let old = old_kv.filter(|store| store.config() == config);
            old.unwrap_or_else(|| Arc::new(Store::new(config)))
        });
        let kept = Kept { kv, metrics };
        let loaded = self
            .loader()
            .and_then(|loader| loader.load(name, config, &kept))
            .inspect_err(|_| {
                kept.metrics.failed_loads.inc();
            })?;
        kept.metrics.loads.inc();
        let hooks: Vec<_> = loaded.guest.hooks().map(Hook::name).collect();
        let (hooks, took) = (hooks.join(", "), started.elapsed());
        let sha256 = &loaded.inspection.sha256;
        tracing::info!(
            plugin = name,
            sha256,
            "plugin {name} loaded in {took:.1?}: {hooks}"
        );
        for note in loaded.notes {
            tracing::warn!(plugin = name, "plugin {name}: {note}");
        }
        Ok(Plugin {
            name: name.to_owned(),
            config: config.clone(),
            stamp,
            kept,
            guest: loaded.guest,
            remembered: Remembered::default(),
            failures: Failures::default(),
        })
    }

    fn loader(&self) -> anyhow::Result<Arc<Loader>> {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loader) = &*loader {
            return Ok(Arc::clone(loader));
        }
        let engine = GuestEngine::new().context("plugins cannot be run here")?;
        let folder = self.surroundings.state_folder.as_ref();
        let aot = folder.and_then(|folder| match AotCache::open(folder) {
            Ok(aot) => Some(aot),
            Err(error) => {
                tracing::warn!("compiled plugins are not kept: {error:#}");
                None
            }
        });
        let made = Arc::new(Loader {
            engine: Arc::new(engine),
            aot,
            max_body: self.surroundings.max_body,
            clock: Clock::real(),
        });
        Ok(Arc::clone(loader.insert(made)))
    }

    /// Whether a plugin authenticates on some route.
    #[must_use]
    pub fn has_authenticators(&self) -> bool {
        !self.set.load().authenticators.is_empty()
    }

    /// Whether a plugin preprocesses.
    #[must_use]
    pub fn has_preprocessors(&self) -> bool {
        !self.set.load().preprocessors.is_empty()
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
            let asked =
                authenticate::authenticate(&plugin.guest, names, &plugin.remembered, limits, head);
            match asked.await.0 {
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
            let asked =
                preprocess::preprocess(&plugin.guest, &ctx.id, ctx.deadline, caller, request);
            match asked.await.0 {
                Ok(Change::Done(added)) => headers.extend(added),
                Ok(Change::Refused(error)) => return Err(error),
                Err(failure) => {
                    plugin.say_failure(Hook::Preprocess, &ctx.id, &failure);
                    match plugin.config.on_error {
                        OnError::Deny => return Err(unavailable(&failure, "plugin_failed")),
                        OnError::Skip => headers.push((SKIPPED.into(), plugin.name.clone())),
                    }
                }
            }
        }
        Ok(headers)
    }

    /// Whether somebody is told of finished requests.
    #[must_use]
    pub fn has_observers(&self) -> bool {
        !self.set.load().observers.is_empty()
    }

    /// Tells the observers of a finished request. Never waits.
    pub fn observe(&self, summary: Summary) {
        let summary = Arc::new(summary);
        for (plugin, observer) in &self.set.load().observers {
            if !observer.send(Arc::clone(&summary)) {
                plugin.kept.metrics.summaries_dropped.inc();
            }
        }
    }

    /// Ends the observers, once they were told what waits.
    pub fn stop(&self) {
        self.set.store(Arc::default());
    }
}

/// What the client is told of a plugin's failure: not why.
fn unavailable(failure: &Failure, code: &'static str) -> Error {
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

impl PluginSet {
    fn new(all: BTreeMap<String, Arc<Plugin>>) -> Self {
        let with = |hook: Hook| {
            let has = |plugin: &&Arc<Plugin>| plugin.guest.hooks().any(|has| has == hook);
            let mut plugins: Vec<_> = all.values().filter(has).map(Arc::clone).collect();
            plugins.sort_by_key(|plugin| plugin.config.order);
            plugins
        };
        let (authenticators, preprocessors) = (with(Hook::Authenticate), with(Hook::Preprocess));
        let observers = with(Hook::Observe).into_iter();
        let observers = observers
            .map(|plugin| (Arc::clone(&plugin), Observer::start(plugin)))
            .collect();
        Self {
            authenticators,
            preprocessors,
            observers,
            all,
        }
    }
}

impl Plugin {
    /// Whether its preprocessor is asked about a model, whichever of the model's names the client or the plugin's
    /// configuration says.
    fn applies_to(&self, model: &str, names_of: &impl Fn(&str) -> Vec<String>) -> bool {
        let patterns = &self.config.models;
        patterns.is_empty()
            || names_of(model)
                .iter()
                .any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
    }

    /// Logs a failure with its cause; not each of many.
    fn say_failure(&self, hook: Hook, request_id: &str, failure: &Failure) {
        let mut said = self
            .failures
            .said
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| said.elapsed() < LOG_EVERY) {
            self.failures.n_unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *said = Some(Instant::now());
        drop(said);
        let more = match self.failures.n_unsaid.swap(0, Ordering::Relaxed) {
            0 => String::new(),
            n => format!(" (and {n} more failures since the last line)"),
        };
        let causes: Vec<String> =
            std::iter::successors(Some(failure as &dyn std::error::Error), |e| e.source())
                .map(ToString::to_string)
                .collect();
        let (plugin, hook, kind, causes) =
            (&self.name, hook.name(), failure.kind(), causes.join(": "));
        tracing::error!(
            plugin,
            hook,
            kind,
            id = request_id,
            "plugin {plugin}: {hook} {causes}{more}"
        );
    }
}

/// What tells versions of a plugin's files apart without reading them.
fn stamp(config: &PluginConfig) -> Vec<Option<FileStamp>> {
    let one = |path: &std::path::Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    config.files().map(one).collect()
}

/// The files of plugins, to see when one of them changes.
#[must_use]
pub fn stamps(configs: &BTreeMap<String, PluginConfig>) -> Stamps {
    Stamps(configs.values().map(stamp).collect())
}

/// Lengths and times of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Vec<Option<FileStamp>>>);

#[cfg(test)]
mod tests;
