//! The models that the gateway serves now: which are loaded, and how one is put in the place of another.
//!
//! Every request takes the service of its moment, an [`Embedder`], and keeps it to its end; a change publishes another one.
//! So an answer comes from the models of before or from the new ones, never from both, and a model's memory goes with the
//! last request that it serves. One change is made at a time: `apply` makes what a configuration says, `fetch` what was
//! fetched meanwhile, [`ModelManager::wake`] what a request asks for, [`ModelManager::keep`] lets go of what nobody uses.

mod apply;
mod fetch;
mod room;
mod served;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use embedgate_config::{ByteSize, ModelConfig};
use embedgate_metrics::Metrics;
use embedgate_request::Error;
use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};

pub(crate) use self::{apply::Applied, fetch::Fetcher};
use self::{room::Beside, served::Served};
use crate::{
    embed::Embedder,
    model::{
        Entry, Model, ModelRegistry, State,
        load::{self, Loading},
        surroundings::Surroundings,
    },
};

/// How often it is looked for models that nobody uses.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A model that could not be loaded for a request may be asked for again after this time.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// A load that several requests wait for.
type Waking = Shared<BoxFuture<'static, Result<(), Arc<str>>>>;

/// Loads, exchanges and unloads models while the gateway serves.
pub(crate) struct ModelManager {
    /// None until the first models are loaded, and at the end.
    embedder: ArcSwapOption<Embedder>,
    surroundings: Surroundings,
    metrics: Metrics,
    /// Gets models that are not there, where that is asked for.
    fetcher: Option<Fetcher>,
    /// What models may take together.
    max_memory: Mutex<Option<ByteSize>>,
    served: Served,
    /// Whether the first models are loaded.
    started: watch::Sender<bool>,
    /// Whoever has it may change what is served.
    turn: tokio::sync::Mutex<()>,
    wakings: Mutex<HashMap<String, Waking>>,
    /// Models that are not served any more and still answer requests.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

/// What a manager is made of.
pub(crate) struct Parts {
    /// What loading needs to know.
    pub surroundings: Surroundings,
    /// What is counted.
    pub metrics: Metrics,
    /// Gets models that are not there.
    pub fetcher: Option<Fetcher>,
    /// The file that remembers which models were served; none where nothing is kept.
    pub served: Option<PathBuf>,
    /// The configuration's own file: each has names of its own.
    pub config: PathBuf,
}

impl ModelManager {
    /// A manager of no models yet.
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
            turn: tokio::sync::Mutex::default(),
            wakings: Mutex::default(),
            leaving: Mutex::default(),
        }
    }

    /// A manager of a service that is there already, for tests.
    #[cfg(test)]
    pub(crate) fn of(embedder: Embedder, metrics: &Metrics) -> Self {
        let manager = Self::new(Parts {
            surroundings: Surroundings::default(),
            metrics: metrics.clone(),
            fetcher: None,
            served: None,
            config: PathBuf::new(),
        });
        manager.embedder.store(Some(Arc::new(embedder)));
        manager
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
    /// does not end it.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub(crate) async fn wake(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let waking = {
            let mut wakings = self.wakings.lock().unwrap_or_else(PoisonError::into_inner);
            let start = || {
                let (manager, name) = (Arc::clone(self), name.to_owned());
                let task = tokio::spawn(async move { manager.load_on_demand(&name).await });
                let ended = |end: Result<Result<(), Arc<str>>, JoinError>| {
                    end.unwrap_or_else(|error| Err(format!("a fault of embedgate: {error}").into()))
                };
                task.map(ended).boxed().shared()
            };
            wakings.entry(name.to_owned()).or_insert_with(start).clone()
        };
        waking.await.map_err(|reason| {
            let message = format!("model \"{name}\" could not be loaded: {reason}");
            Error::unavailable(message, AFTER_FAILURE).with_code("model_unavailable")
        })
    }

    async fn load_on_demand(self: Arc<Self>, name: &str) -> Result<(), Arc<str>> {
        let _turn = self.turn.lock().await;
        let entry = self.entry(name);
        let loaded = match entry {
            Some(Entry {
                config,
                state: State::OnDemand(_),
                ..
            }) => self.load(name, &config, Beside::Nothing).await,
            // Somebody else was first, or it is gone: who asked looks again.
            _ => {
                self.forget_waking(name);
                return Ok(());
            }
        };
        let loaded = loaded.map(|model| self.publish_state(name, State::Loaded(model)));
        self.forget_waking(name);
        loaded.map_err(|reason| {
            tracing::error!(
                model.name = name,
                "model {name} cannot be loaded on demand: {reason}"
            );
            reason.into()
        })
    }

    fn forget_waking(&self, name: &str) {
        let mut wakings = self.wakings.lock().unwrap_or_else(PoisonError::into_inner);
        wakings.remove(name);
    }

    /// Lets go of models that are loaded on demand and that nobody uses, for ever.
    pub(crate) async fn keep(&self) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            // A change under way will not be waited for.
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
                    self.unload(entry, model);
                    self.free_later(&entry.name, Arc::clone(model));
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
    fn unload(&self, entry: &Entry, model: &Model) {
        self.metrics.forget_model(&entry.name, &model.info);
        self.publish_state(&entry.name, State::OnDemand(model.outline()));
    }

    /// Loads a model, apart from the threads that serve.
    async fn load(
        self: &Arc<Self>,
        name: &str,
        config: &Arc<ModelConfig>,
        beside: Beside,
    ) -> Result<Arc<Model>, String> {
        // At most two models under a name are in memory.
        self.wait_for_leaving().await;
        let (manager, owned, settings) = (Arc::clone(self), name.to_owned(), Arc::clone(config));
        let loading = tokio::task::spawn_blocking(move || {
            let room = |bytes| manager.make_room(&owned, bytes, beside);
            let loading = Loading {
                surroundings: &manager.surroundings,
                metrics: &manager.metrics,
                room: &room,
            };
            load::load(&owned, &settings, loading)
        });
        let model = match loading.await {
            Ok(Ok(model)) => Arc::new(model),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(error) => return Err(format!("loading ended with a fault of embedgate: {error}")),
        };
        self.served.note(name, model.files().space);
        Ok(model)
    }

    /// The entry of a model as it is now.
    fn entry(&self, name: &str) -> Option<Entry> {
        self.embedder()?.registry().entry(name).cloned()
    }

    /// Puts other models in the place of those that are served.
    fn publish(&self, registry: ModelRegistry) {
        if let Some(embedder) = self.embedder() {
            let changed = embedder.with_registry(registry);
            self.embedder.store(Some(Arc::new(changed)));
        }
    }

    fn publish_state(&self, name: &str, state: State) {
        if let Some(embedder) = self.embedder() {
            self.publish(embedder.registry().with_state(name, state));
        }
    }
}
