//! Loads what is new or has changed, off to the side, and then swaps the set of plugins at once.

mod in_time;
pub(super) mod set;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, bail};
use embedgate_config::PluginConfig;
use embedgate_request::Hook;

use self::{in_time::load_in_time, set::PluginSet};
use super::{
    Plugins,
    aot::AotCache,
    authenticate::remembered::Remembered,
    clock::Clock,
    engine::GuestEngine,
    kv::Store,
    load::{Loader, PluginResources},
    observe::Observer,
    plugin::Plugin,
};
use crate::interface::{FileStamp, Reloaded, stamp};

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
            Some(old) => old.resources.metrics.clone(),
            None => self.context.metrics.plugin(name),
        };
        // What is stored outlives a plugin's version.
        let old_kv = old.and_then(|old| old.resources.kv.clone());
        let kv = config
            .grants
            .kv
            .map(|config| old_kv.unwrap_or_else(|| Arc::new(Store::new(config))));
        let resources = PluginResources { kv, metrics };
        let loaded = self
            .loader()
            .and_then(|loader| load_in_time(loader, name, config, &resources))
            .inspect_err(|_| {
                resources.metrics.failed_loads.inc();
            })?;
        if let (Some(kv), Some(config)) = (&resources.kv, config.grants.kv) {
            kv.set_config(config);
        }
        resources.metrics.loads.inc();
        let hooks: Vec<_> = loaded.guest.exports.hooks().map(Hook::name).collect();
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
            resources,
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
        let folder = self.context.state_folder.as_ref();
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
            max_body: self.context.max_body,
            clock: Clock::real(),
            init_timeout: self.context.init_timeout,
        });
        Ok(Arc::clone(loader.insert(made)))
    }
}

/// A new file without a hook that the old one had would let requests by unseen, or nobody in at all.
fn keeps_its_hooks(old: Option<&Arc<Plugin>>, new: Plugin) -> anyhow::Result<Plugin> {
    let Some(old) = old.filter(|old| old.config.hooks == new.config.hooks) else {
        return Ok(new);
    };
    let is_lost = |hook: &Hook| new.guest.exports.hooks().all(|has| has != *hook);
    let lost: Vec<_> = old
        .guest
        .exports
        .hooks()
        .filter(is_lost)
        .map(Hook::name)
        .collect();
    if !lost.is_empty() {
        let (shown, lost) = (new.config.path.display(), lost.join(" and "));
        bail!(
            "{shown} has no hook {lost}, and the file before it had: if that is meant, name the hooks it has in hooks"
        );
    }
    Ok(new)
}
