//! Loads what is new or has changed, off to the side, and then swaps the set of plugins at once.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use embedgate_config::PluginConfig;
use embedgate_request::Hook;

use super::{
    Plugin, Plugins,
    aot::AotCache,
    authenticate::Remembered,
    engine::GuestEngine,
    kv::Store,
    load::{Kept, Loaded, Loader},
    observe::Observer,
    state::Clock,
};
use crate::words::{FileStamp, Reloaded, stamp};

/// A plugin must be compiled within so much time on processors: Python's, the largest known, takes 6 s. How long that is by the clock
/// depends on what else the machine does, since requests go first.
const MOST_CPU_TIME: Duration = Duration::from_secs(120);
/// Within this time by the clock in any case.
const MOST_TIME: Duration = Duration::from_secs(1800);
/// The time between two looks at it.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two lines of the log that say that it goes on.
const SAY: Duration = Duration::from_secs(15);

/// The plugins of one moment, by hook, in the order they are asked.
#[derive(Default)]
pub(super) struct PluginSet {
    pub(super) all: BTreeMap<String, Arc<Plugin>>,
    pub(super) authenticators: Vec<Arc<Plugin>>,
    pub(super) preprocessors: Vec<Arc<Plugin>>,
}

impl Plugins {
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
            let loaded = self
                .load_one(name, config, stamp, old)
                .and_then(|plugin| keeps_its_hooks(old, plugin));
            match loaded {
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
        // What is stored outlives a plugin's version.
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

/// A new file without a hook that the old one had would let requests by unseen, or nobody in at all.
fn keeps_its_hooks(old: Option<&Arc<Plugin>>, new: Plugin) -> anyhow::Result<Plugin> {
    let Some(old) = old.filter(|old| old.config.hooks == new.config.hooks) else {
        return Ok(new);
    };
    let is_lost = |hook: &Hook| new.guest.hooks().all(|has| has != *hook);
    let lost: Vec<_> = old.guest.hooks().filter(is_lost).map(Hook::name).collect();
    if !lost.is_empty() {
        let (shown, lost) = (new.config.path.display(), lost.join(" and "));
        bail!(
            "{shown} has no hook {lost}, and the file before it had: if that is meant, name the hooks it has in hooks"
        );
    }
    Ok(new)
}

/// Loads a plugin on a thread of its own, which is left to itself where it takes too long: wasmtime cannot be stopped
/// while it compiles.
fn load_in_time(
    loader: Arc<Loader>,
    name: &str,
    config: &PluginConfig,
    kept: &Kept,
) -> anyhow::Result<Loaded> {
    let done = Arc::new((Mutex::new(None), Condvar::new()));
    let to_here = Arc::clone(&done);
    let engine = Arc::clone(&loader.engine);
    let (shown, config, kept) = (name, config.clone(), kept.clone());
    let name = name.to_owned();
    let runtime = tokio::runtime::Handle::try_current();
    let (begun, before) = (Instant::now(), engine.loading_time().unwrap_or_default());
    std::thread::Builder::new()
        .name("plugin-loader".into())
        .spawn(move || {
            let _in_runtime = runtime.as_ref().map(tokio::runtime::Handle::enter);
            let thread = loader.engine.register_thread();
            let load = AssertUnwindSafe(|| loader.load(&name, &config, &kept));
            let loaded = catch_unwind(load)
                .unwrap_or_else(|_| Err(anyhow!("loading panicked: see the log")));
            drop(thread);
            *to_here.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
            to_here.1.notify_one();
        })?;
    let mut say = begun + SAY;
    // Not by a timer of the runtime, which may end while this waits.
    let mut slot = done.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waited = done
            .1
            .wait_timeout_while(slot, LOOK, |loaded| loaded.is_none());
        slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(loaded) = slot.take() {
            return loaded;
        }
        let elapsed = begun.elapsed();
        let spent = engine.loading_time();
        let spent = spent.map_or(elapsed, |now| now.saturating_sub(before));
        if spent >= MOST_CPU_TIME || elapsed >= MOST_TIME {
            bail!(
                "compiling took {spent:.0?} on processors, and {elapsed:.0?} by the clock: is it a plugin?"
            );
        }
        if Instant::now() >= say {
            say += SAY;
            tracing::info!(
                plugin = shown,
                "plugin {shown} is being compiled: {spent:.0?} on processors in {elapsed:.0?}; `embedgate plugin compile` does it beforehand"
            );
        }
    }
}
