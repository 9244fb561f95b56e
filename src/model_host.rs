//! The models that the gateway serves now: which are loaded, and how one is put in the place of another.
//!
//! Every request takes the service of its moment, an [`Embedder`], and keeps it to its end; a change publishes another one.
//! So an answer comes from the models of before or from the new ones, never from both, and a model's memory goes with the
//! last request that it serves. One change is made at a time: `apply` makes what a configuration says, `fetch` what was
//! fetched meanwhile, [`ModelHost::wake`] what a request asks for, [`ModelHost::keep`] lets go of what nobody uses.

mod applied;
mod apply;
mod fetch;
mod room;
mod served;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use embedgate_config::ByteSize;
use embedgate_metrics::Metrics;
use embedgate_request::Error;
use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};

pub(crate) use self::{
    applied::{Applied, Change},
    fetch::Fetcher,
};
use self::{fetch::Fetch, room::Beside, served::Served};
use crate::{
    embed::Embedder,
    model::{
        About, Entry, MemoryUse, Model, State,
        load::{self, LoadError, Loading},
        surroundings::Surroundings,
    },
};

/// Time between two searches for models that no request uses.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A model that could not be loaded on demand is not tried again within this time.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// A load that several requests wait for.
type Waking = Shared<BoxFuture<'static, Result<(), Arc<str>>>>;

/// Loads, exchanges and unloads models while the gateway serves.
pub(crate) struct ModelHost {
    /// None until the first models are loaded, and at the end.
    embedder: ArcSwapOption<Embedder>,
    surroundings: Surroundings,
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
    pub surroundings: Surroundings,
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
            surroundings: parts.surroundings,
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
            surroundings: Surroundings::default(),
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

    /// Puts a model that is loaded on demand into memory. Many may ask at once, and one load answers them all; who leaves
    /// does not end it. One that failed a moment ago is not tried again.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub(crate) async fn wake(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let failed = |reason: &str, after: Duration| {
            let message = format!("model \"{name}\" could not be loaded: {reason}");
            Error::unavailable(message, after).with_code("model_unavailable")
        };
        if let Some((at, reason)) = self.failures().get(name) {
            let left = AFTER_FAILURE.saturating_sub(at.elapsed());
            if !left.is_zero() {
                return Err(failed(reason, left));
            }
        }
        let waking = {
            let mut wakings = self.wakings.lock().unwrap_or_else(PoisonError::into_inner);
            let start = || {
                let (host, name) = (Arc::clone(self), name.to_owned());
                let task = tokio::spawn(async move { host.load_on_demand(&name).await });
                let ended = |end: Result<Result<(), Arc<str>>, JoinError>| {
                    end.unwrap_or_else(|error| Err(format!("a fault of embedgate: {error}").into()))
                };
                task.map(ended).boxed().shared()
            };
            wakings.entry(name.to_owned()).or_insert_with(start).clone()
        };
        let woken = waking.await;
        woken.map_err(|reason| failed(&reason, AFTER_FAILURE))
    }

    async fn load_on_demand(self: Arc<Self>, name: &str) -> Result<(), Arc<str>> {
        let _turn = self.turn.lock().await;
        let entry = self.entry(name);
        let is_asleep = |entry: &Entry| matches!(entry.state, State::OnDemand);
        let loaded = match entry.filter(is_asleep) {
            Some(Entry { about, .. }) => self.load(&about, Beside::Nothing).await.map(Some),
            // Somebody else was first, or it is gone: who asked looks again.
            None => Ok(None),
        };
        // From here on whoever asks begins anew.
        self.wakings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        match loaded {
            Ok(Some(model)) => self.publish_state(name, State::Loaded(model)),
            Ok(None) => {}
            Err(reason) => {
                let reason: Arc<str> = reason.into();
                tracing::error!(
                    model.name = name,
                    "model {name} cannot be loaded on demand: {reason}"
                );
                let failure = (Instant::now(), Arc::clone(&reason));
                self.failures().insert(name.to_owned(), failure);
                return Err(reason);
            }
        }
        Ok(())
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, (Instant, Arc<str>)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets failed loads, so that they are tried again: the configuration is another.
    fn forget_failures(&self) {
        self.failures().clear();
    }

    /// Lets go of models that are loaded on demand and that nobody uses, for ever.
    pub(crate) async fn keep(&self) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            // A change under way is not waited for.
            let Ok(_turn) = self.turn.try_lock() else {
                continue;
            };
            let Some(embedder) = self.embedder() else {
                continue;
            };
            for entry in embedder.registry().entries() {
                let (Some(model), Some(idle)) = (entry.loaded(), entry.config.idle) else {
                    continue;
                };
                if model.unused_for() >= idle.0 {
                    self.unload(&entry.name);
                    tracing::info!(
                        model.name = entry.name,
                        "model {} leaves the memory: nobody used it for {idle}",
                        entry.name
                    );
                }
            }
        }
    }

    /// Lets go of a model that can be loaded again on demand.
    fn unload(&self, name: &str) {
        self.publish_state(name, State::OnDemand);
    }

    /// Loads a model, apart from the threads that serve.
    async fn load(
        self: &Arc<Self>,
        about: &Arc<About>,
        beside: Beside,
    ) -> Result<Arc<Model>, String> {
        // At most two models under a name are in memory.
        self.wait_for_leaving().await;
        let (host, about) = (Arc::clone(self), Arc::clone(about));
        let loading = tokio::task::spawn_blocking(move || {
            let name = &about.name;
            let room = |bytes| host.make_room(name, bytes, beside);
            let loading = Loading {
                surroundings: &host.surroundings,
                metrics: &host.metrics,
                room: &room,
            };
            let model = load::load(name, &about.config, loading)?;
            host.count(&model);
            host.served.note(name, model.files().space);
            Ok::<_, LoadError>(model)
        });
        match loading.await {
            Ok(Ok(model)) => Ok(Arc::new(model)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("loading ended with a fault of embedgate: {error}")),
        }
    }

    /// The entry of a model as it is now.
    fn entry(&self, name: &str) -> Option<Entry> {
        self.embedder()?.registry().entry(name).cloned()
    }

    fn publish_state(&self, name: &str, state: State) {
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
            let now = now.and_then(Entry::loaded);
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
