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
pub mod harness;
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
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use self::{
    aot::AotCache,
    authenticate::{Remembered, Verdict},
    engine::GuestEngine,
    guest::{Failure, Guest},
    kv::Store,
    load::{Kept, Loaded, Loader},
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

/// A plugin must be compiled within this time: Python's, the largest known, takes 6 s on one core.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// At the end of the process, observers have this time for what waits.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Added to the answer of a request whose preprocessor failed and was skipped.
const SKIPPED: &str = "x-embedgate-plugin-skipped";
/// A failing plugin is logged in full once in this time; in between its failures are counted.
const LOG_EVERY: Duration = Duration::from_secs(1);

pub use self::load::INIT_TIMEOUT;

/// Checks a URL of `grants.http.allow`.
///
/// # Errors
/// What is wrong with it.
pub fn check_allowed_url(url: &str) -> Result<(), String> {
    outbound::allowed_url(url).map(drop)
}

/// Reads a component without compiling it.
///
/// # Errors
/// When the file cannot be read, or is no plugin.
pub fn inspect(file: &std::path::Path) -> anyhow::Result<Inspection> {
    let bytes = load::read(file)?;
    Inspection::of(&bytes).with_context(|| file.display().to_string())
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
    /// What a plugin's `init` may take.
    pub init_timeout: Duration,
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

/// The plugins of one moment, by hook, in the order they are asked.
#[derive(Default)]
struct PluginSet {
    all: BTreeMap<String, Arc<Plugin>>,
    authenticators: Vec<Arc<Plugin>>,
    preprocessors: Vec<Arc<Plugin>>,
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

type FileStamp = (u64, std::time::SystemTime);

/// Failures of one kind.
#[derive(Default)]
struct Failures {
    n_unsaid: u64,
    said: Option<Instant>,
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
            observers: ArcSwap::default(),
            tasks: Mutex::default(),
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
        let gone = before
            .all
            .iter()
            .filter(|(name, _)| !configs.contains_key(*name));
        for (name, plugin) in gone {
            // It may have another name now, under which it cannot be loaded: nothing goes before all the rest is there.
            if reloaded.failed.is_empty() {
                reloaded.removed.push(name.clone());
            } else {
                all.insert(name.clone(), Arc::clone(plugin));
            }
        }
        if !reloaded.loaded.is_empty() || !reloaded.removed.is_empty() {
            self.swap(PluginSet::new(all));
        }
        reloaded
    }

    fn swap(&self, set: PluginSet) {
        let before = self.observers.load_full();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        let observers = set.with(Hook::Observe).into_iter().map(|plugin| {
            let same = before.iter().find(|(old, _)| Arc::ptr_eq(old, &plugin));
            let observer = same.map(|(_, observer)| observer.clone());
            let observer = observer.unwrap_or_else(|| {
                let (observer, task) = Observer::start(Arc::clone(&plugin));
                tasks.push(task);
                observer
            });
            (plugin, observer)
        });
        self.observers.store(Arc::new(observers.collect()));
        self.set.store(Arc::new(set));
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
        let kv = config
            .grants
            .kv
            .map(|config| old_kv.unwrap_or_else(|| Arc::new(Store::new(config))));
        let kept = Kept { kv, metrics };
        let loaded = self
            .loader()
            .and_then(|loader| load_in_time(loader, name, config, &kept))
            .inspect_err(|_| {
                kept.metrics.failed_loads.inc();
            })?;
        if let (Some(kv), Some(config)) = (&kept.kv, config.grants.kv) {
            kv.set_config(config);
        }
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
            failures: Mutex::default(),
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
            init_timeout: self.surroundings.init_timeout,
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
            let asked = authenticate::authenticate(
                &plugin.guest,
                names,
                Some(&plugin.remembered),
                limits,
                head,
            );
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

    /// Whether somebody is told of finished requests.
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

/// What the client is told of a plugin's failure: not why.
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

impl PluginSet {
    fn new(all: BTreeMap<String, Arc<Plugin>>) -> Self {
        let mut set = Self {
            all,
            ..Self::default()
        };
        set.authenticators = set.with(Hook::Authenticate);
        set.preprocessors = set.with(Hook::Preprocess);
        set
    }

    /// The plugins with a hook, in the order they are asked.
    fn with(&self, hook: Hook) -> Vec<Arc<Plugin>> {
        let has = |plugin: &&Arc<Plugin>| plugin.guest.hooks().any(|has| has == hook);
        let mut plugins: Vec<_> = self.all.values().filter(has).map(Arc::clone).collect();
        plugins.sort_by_key(|plugin| plugin.config.order);
        plugins
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

/// Loads a plugin on a thread of its own, which is left to itself where it takes too long: wasmtime cannot be stopped
/// while it compiles.
fn load_in_time(
    loader: Arc<Loader>,
    name: &str,
    config: &PluginConfig,
    kept: &Kept,
) -> anyhow::Result<Loaded> {
    let (done, loaded) = tokio::sync::oneshot::channel();
    let (name, config, kept) = (name.to_owned(), config.clone(), kept.clone());
    let runtime = tokio::runtime::Handle::try_current();
    std::thread::Builder::new()
        .name("plugin-loader".into())
        .spawn(move || {
            let _in_runtime = runtime.as_ref().map(tokio::runtime::Handle::enter);
            // An error means that nobody waits any more.
            drop(done.send(loader.load(&name, &config, &kept)));
        })?;
    let waiting = async { tokio::time::timeout(LOAD_TIMEOUT, loaded).await };
    match snapshot::block_on(waiting) {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(_)) => bail!("loading panicked: see the log"),
        Err(_) => bail!("compiling takes longer than {LOAD_TIMEOUT:?}: is it a plugin?"),
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
