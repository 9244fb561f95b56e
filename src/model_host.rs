//! The models that the gateway serves now: which are loaded, and how one is put in the place of another.
//!
//! Every request takes the service of its moment, an [`Embedder`], and keeps it to its end; a change publishes another one.
//! So an answer comes from the models of before or from the new ones, never from both, and a model's memory goes with the
//! last request that it serves. One change is made at a time: `apply` makes what a configuration says, `fetch` what was
//! fetched meanwhile, [`ModelHost::wake`] what a request asks for, [`ModelHost::keep`] lets go of what nobody uses.

mod applied;
mod apply;
mod demand;
mod fetch;
mod leaving;
mod load;
mod room;
mod served;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use arc_swap::ArcSwapOption;
use embedgate_config::ByteSize;
use embedgate_metrics::Metrics;
use tokio::{sync::watch, task::JoinHandle};

pub(crate) use self::{
    applied::{Applied, Change},
    fetch::Fetcher,
};
use self::{demand::Waking, fetch::Fetch, served::Served};
use crate::{
    embed::Embedder,
    model::{MemoryUse, ModelState, RegistryEntry, load_context::LoadContext},
};

/// Loads, exchanges and unloads models while the gateway serves.
pub(crate) struct ModelHost {
    /// None until the first models are loaded, and at the end.
    embedder: ArcSwapOption<Embedder>,
    load_context: LoadContext,
    metrics: Metrics,
    /// Gets models that are not there, where that is asked for.
    fetcher: Option<Fetcher>,
    /// Most memory that models may take together.
    max_memory: Mutex<Option<ByteSize>>,
    served: Served,
    /// True when the first models are loaded.
    started: watch::Sender<bool>,
    /// Held from the beginning of a reload to its end.
    applying: tokio::sync::Mutex<()>,
    /// Whoever has it may load a model and change what is served.
    turn: tokio::sync::Mutex<()>,
    wakings: Mutex<HashMap<String, Waking>>,
    /// The failed loads on demand, by model: when, and why.
    failures: Mutex<HashMap<String, (Instant, Arc<str>)>>,
    fetches: Mutex<Vec<Fetch>>,
    /// The memory of the models that are in memory.
    in_memory: Mutex<Vec<MemoryUse>>,
    /// Models that are not served any more and still answer requests.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

/// The parts that a host is made of.
pub(crate) struct Parts {
    /// The facts that loading needs.
    pub load_context: LoadContext,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Gets models that are not there.
    pub fetcher: Option<Fetcher>,
    /// The file that remembers which models were served; none where nothing is kept.
    pub served: Option<PathBuf>,
    /// The configuration's own file: each has names of its own.
    pub config: PathBuf,
}

impl ModelHost {
    /// A host of no models yet.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            embedder: ArcSwapOption::empty(),
            load_context: parts.load_context,
            metrics: parts.metrics,
            fetcher: parts.fetcher,
            max_memory: Mutex::default(),
            served: Served::new(parts.served, &parts.config),
            started: watch::Sender::new(false),
            applying: tokio::sync::Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            wakings: Mutex::default(),
            failures: Mutex::default(),
            fetches: Mutex::default(),
            in_memory: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// A host of a service that is there already, for tests.
    #[cfg(test)]
    pub(crate) fn of(embedder: Embedder, metrics: &Metrics) -> Self {
        let host = Self::new(Parts {
            load_context: LoadContext::default(),
            metrics: metrics.clone(),
            fetcher: None,
            served: None,
            config: PathBuf::new(),
        });
        host.embedder.store(Some(Arc::new(embedder)));
        host
    }

    /// The service as it is now; none before the first models are loaded.
    #[must_use]
    pub(crate) fn embedder(&self) -> Option<Arc<Embedder>> {
        self.embedder.load_full()
    }

    /// Waits until the first models are loaded.
    pub(crate) async fn started(&self) {
        // An error cannot be: the sender is here.
        drop(self.started.subscribe().wait_for(|started| *started).await);
    }

    /// Takes the service away, at the end.
    pub(crate) fn take(&self) -> Option<Arc<Embedder>> {
        self.embedder.swap(None)
    }

    /// The entry of a model as it is now.
    fn entry(&self, name: &str) -> Option<RegistryEntry> {
        self.embedder()?.registry().entry(name).cloned()
    }

    fn publish_state(&self, name: &str, state: ModelState) {
        if let Some(embedder) = self.embedder() {
            let registry = embedder.registry().with_state(name, state);
            let changed = embedder.with_registry(registry);
            drop(embedder);
            self.replace(changed);
        }
    }

    /// Puts another service in the place of the one that is published. The memory of models that are not in it goes with their
    /// last requests.
    fn replace(&self, embedder: Embedder) {
        let embedder = Arc::new(embedder);
        let before = self.embedder.swap(Some(Arc::clone(&embedder)));
        for entry in before.iter().flat_map(|before| before.registry().entries()) {
            let Some(model) = entry.loaded() else {
                continue;
            };
            let now = embedder.registry().entry(&entry.name);
            let now = now.and_then(RegistryEntry::loaded);
            if now.is_some_and(|now| now.is_same_as(model)) {
                continue;
            }
            match now {
                Some(now) => self.metrics.exchanged(&entry.name, &model.info, &now.info),
                None => self.metrics.forget_model(&entry.name, &model.info),
            }
            self.free_later(Arc::clone(model));
        }
    }
}
