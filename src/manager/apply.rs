//! From the models that are served to those that a configuration names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use embedgate_config::{Config, LoadTime, ModelConfig};
use serde::Serialize;

use super::{
    ModelManager,
    room::{Beside, gone},
};
use crate::{
    cache::EmbeddingCache,
    embed::Embedder,
    model::{Entry, Model, ModelRegistry, State, load},
};

/// What became of each model.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Applied(pub BTreeMap<String, Change>);

/// What became of a model.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum Change {
    /// It is as it was.
    Kept,
    /// It was loaded, under a name that no model had, or whose model could not be loaded before.
    Added,
    /// It was loaded in the place of the one before.
    Exchanged,
    /// It has other settings for requests; nothing had to be loaded.
    Adjusted,
    /// It is loaded when a request names it.
    OnDemand,
    /// It is being fetched, and loaded then.
    Fetching,
    /// The configuration does not name it any more.
    Removed,
    /// It could not be loaded.
    Failed {
        /// Why.
        reason: String,
        /// Whether the one before still serves.
        serves_as_before: bool,
    },
}

impl Applied {
    /// What could not be loaded, as `model NAME: reason`.
    pub(crate) fn failed(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(name, change)| match change {
            Change::Failed { reason, .. } => Some(format!("model {name}: {reason}")),
            _ => None,
        })
    }

    /// Logs it: a line for each model that is not as it was.
    pub(crate) fn say(&self) {
        for (name, change) in &self.0 {
            match change {
                Change::Kept => {}
                Change::Added => tracing::info!(model.name = name, "model {name} added"),
                Change::Exchanged => tracing::info!(model.name = name, "model {name} exchanged"),
                Change::Adjusted => {
                    tracing::info!(model.name = name, "model {name} has other settings");
                }
                Change::OnDemand => {
                    tracing::info!(model.name = name, "model {name} is loaded on demand");
                }
                Change::Fetching => {
                    tracing::info!(model.name = name, "model {name} is being fetched");
                }
                Change::Removed => tracing::info!(model.name = name, "model {name} removed"),
                Change::Failed {
                    reason,
                    serves_as_before: true,
                } => tracing::error!(
                    model.name = name,
                    "model {name} cannot be exchanged, the one before serves on: {reason}"
                ),
                Change::Failed { reason, .. } => {
                    tracing::error!(model.name = name, "model {name} cannot be loaded: {reason}");
                }
            }
        }
    }
}

/// What has to be done for a model.
enum Step {
    /// Nothing more.
    Done(Entry, Change),
    /// It has to be loaded, or fetched.
    Load,
}

/// A change from one configuration to another, half done.
struct Changing<'a> {
    manager: &'a Arc<ModelManager>,
    config: &'a Config,
    cache: &'a EmbeddingCache,
    /// The models that were there and still are.
    before: Vec<Entry>,
    /// Where no model was named.
    default_before: Option<String>,
    /// The models as the configuration has them, as far as they are ready.
    done: BTreeMap<String, Entry>,
    applied: Applied,
}

impl ModelManager {
    /// Makes the models what the configuration says. A model is loaded beside the one whose place it takes, which serves until
    /// then, and on where the new one cannot be loaded; what is the same is not touched. Nothing is served before the first
    /// call ends.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        config: &Config,
        cache: &EmbeddingCache,
    ) -> Applied {
        let _turn = self.turn.lock().await;
        let limit = config.server.max_model_memory;
        *self
            .max_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = limit;
        let (before, default_before) = match self.embedder() {
            Some(embedder) => {
                let registry = embedder.registry();
                (
                    registry.entries().to_vec(),
                    registry.default_name().map(str::to_owned),
                )
            }
            None => (Vec::new(), None),
        };
        let changing = Changing {
            manager: self,
            config,
            cache,
            before,
            default_before,
            done: BTreeMap::new(),
            applied: Applied::default(),
        };
        changing.run().await
    }

    /// The state in which a model begins: loaded, or on its way.
    pub(super) async fn first_state(
        self: &Arc<Self>,
        name: &str,
        config: &Arc<ModelConfig>,
        beside: Beside,
    ) -> Result<State, String> {
        if let Some(problem) = load::to_fetch(config) {
            return match self.fetcher {
                Some(_) => Ok(State::Fetching(Arc::default())),
                None => Err(problem),
            };
        }
        if config.load == LoadTime::OnDemand {
            let planned = Arc::clone(config);
            let plan = blocking(move || load::plan(&planned)).await?;
            let plan = plan.map_err(|error| error.to_string())?;
            return Ok(State::OnDemand(plan.outline()));
        }
        self.load(name, config, beside).await.map(State::Loaded)
    }
}

impl Changing<'_> {
    async fn run(mut self) -> Applied {
        let mut to_load = Vec::new();
        for (name, written) in &self.config.models {
            let old = self
                .before
                .iter()
                .find(|entry| entry.name == *name)
                .cloned();
            let new = Arc::new(written.clone());
            let (old, settled) = (old, Arc::clone(&new));
            let step = match blocking(move || step(old, &settled)).await {
                Ok(step) => step,
                Err(_) => Step::Load,
            };
            match step {
                Step::Done(entry, change) => self.finish(entry, change),
                Step::Load => to_load.push((name.clone(), new)),
            }
        }
        let is_removed = |entry: &&Entry| !self.config.models.contains_key(&entry.name);
        let removed: Vec<&Entry> = self.before.iter().filter(is_removed).collect();
        let mut of_removed = removed.iter().map(|entry| memory(entry)).sum();
        for entry in removed {
            self.applied.0.insert(entry.name.clone(), Change::Removed);
        }
        if to_load.iter().any(|(_, config)| config.stop_first) {
            of_removed = 0;
            self.remove().await;
        }
        for (name, config) in to_load {
            self.load(&name, &config, of_removed).await;
            self.publish_meanwhile();
        }
        let before = std::mem::take(&mut self.before);
        self.publish();
        let is_removed = |entry: &Entry| !self.config.models.contains_key(&entry.name);
        for entry in before.into_iter().filter(is_removed) {
            self.manager.forget(&entry);
            if let State::Loaded(model) = entry.state {
                self.manager.free_later(&entry.name, model);
            }
        }
        self.manager.started.send_replace(true);
        let fetching = self.done.values().filter(|entry| {
            let change = self.applied.0.get(&entry.name);
            change == Some(&Change::Fetching)
        });
        for entry in fetching {
            self.manager.fetch(&entry.name, &entry.config);
        }
        self.applied
    }

    fn finish(&mut self, entry: Entry, change: Change) {
        let before = self.before.iter_mut();
        if let Some(before) = before.into_iter().find(|before| before.name == entry.name) {
            // Its memory goes with the last request that it serves, and not with the whole change.
            let before = std::mem::replace(&mut before.state, State::Loading);
            let is_other = |model: &Model| entry.loaded().is_none_or(|new| !new.is_same_as(model));
            if let State::Loaded(model) = before
                && is_other(&model)
            {
                self.manager.free_later(&entry.name, model);
            }
        }
        self.applied.0.insert(entry.name.clone(), change);
        self.done.insert(entry.name.clone(), entry);
    }

    /// Lets go of the models that are not named any more, before others are loaded.
    async fn remove(&mut self) {
        let is_kept = |entry: &Entry| self.config.models.contains_key(&entry.name);
        let before = std::mem::take(&mut self.before);
        let (kept, removed): (Vec<Entry>, Vec<Entry>) = before.into_iter().partition(is_kept);
        self.before = kept;
        self.publish_meanwhile();
        for entry in removed {
            self.manager.forget(&entry);
            if let State::Loaded(model) = entry.state {
                gone(&entry.name, model).await;
            }
        }
    }

    /// Loads a model, beside the one whose place it takes or after that one is gone.
    async fn load(&mut self, name: &str, config: &Arc<ModelConfig>, of_removed: u64) {
        let old = self.before.iter_mut().find(|entry| entry.name == name);
        let Some((old, model)) = old.and_then(|old| {
            let model = Arc::clone(old.loaded()?);
            Some((old, model))
        }) else {
            return self.add(name, config, of_removed).await;
        };
        if config.stop_first {
            let before = Arc::clone(&old.config);
            *old = Entry::new(name, config, State::Loading);
            self.manager.metrics.forget_model(name, &model.info);
            self.publish_meanwhile();
            gone(name, model).await;
            return self.load_after(name, config, &before).await;
        }
        let kept = old.clone();
        let beside = Beside::Predecessor(model.memory + of_removed);
        match self.manager.first_state(name, config, beside).await {
            // It would not serve for minutes.
            Ok(State::Fetching(_)) => {
                let reason = load::to_fetch(config).unwrap_or_default();
                self.keep(kept, format!("{reason}; reload then"));
            }
            Ok(state) => {
                let change = change_to(&state, Change::Exchanged);
                match &state {
                    State::Loaded(new) => {
                        self.manager.metrics.exchanged(name, &model.info, &new.info);
                    }
                    _ => self.manager.forget(&kept),
                }
                self.finish(Entry::new(name, config, state), change);
            }
            Err(reason) => self.keep(kept, reason),
        }
    }

    /// Loads a model under a name that no model has in memory.
    async fn add(&mut self, name: &str, config: &Arc<ModelConfig>, of_removed: u64) {
        let beside = Beside::Predecessor(of_removed);
        match self.manager.first_state(name, config, beside).await {
            Ok(state) => {
                let change = change_to(&state, Change::Added);
                self.finish(Entry::new(name, config, state), change);
            }
            Err(reason) => self.fail(name, config, reason),
        }
    }

    /// Loads a model after the one before was stopped for it; that one again, where it cannot be.
    async fn load_after(
        &mut self,
        name: &str,
        config: &Arc<ModelConfig>,
        before: &Arc<ModelConfig>,
    ) {
        let reason = match self
            .manager
            .first_state(name, config, Beside::Nothing)
            .await
        {
            Ok(state) => {
                let change = change_to(&state, Change::Exchanged);
                return self.finish(Entry::new(name, config, state), change);
            }
            Err(reason) => reason,
        };
        match self.manager.load(name, before, Beside::Nothing).await {
            Ok(model) => self.keep(Entry::new(name, before, State::Loaded(model)), reason),
            Err(again) => {
                let reason = format!("{reason}; nor can the one before be loaded again: {again}");
                self.fail(name, config, reason);
            }
        }
    }

    fn fail(&mut self, name: &str, config: &Arc<ModelConfig>, reason: String) {
        let state = State::Failed(reason.as_str().into());
        let serves_as_before = false;
        let change = Change::Failed {
            reason,
            serves_as_before,
        };
        self.finish(Entry::new(name, config, state), change);
    }

    /// Keeps a model whose successor cannot be loaded, under those of its names that no other model has now.
    fn keep(&mut self, mut entry: Entry, reason: String) {
        let others = self
            .config
            .models
            .iter()
            .filter(|(name, _)| **name != entry.name);
        let taken: BTreeSet<&String> = others
            .flat_map(|(name, model)| model.aliases.iter().chain([name]))
            .collect();
        entry.aliases.retain(|alias| !taken.contains(alias));
        let serves_as_before = true;
        self.finish(
            entry,
            Change::Failed {
                reason,
                serves_as_before,
            },
        );
    }

    /// Publishes what is ready, beside what was there before. Nothing at the start, where all comes at once.
    fn publish_meanwhile(&self) {
        if self.manager.embedder().is_some() {
            self.publish();
        }
    }

    fn publish(&self) {
        let taken: BTreeSet<&str> = self.done.values().flat_map(Entry::names).collect();
        let mut entries: Vec<Entry> = self.before.clone();
        for entry in &mut entries {
            // Until the change is whole a name goes on meaning something.
            let mut aliases = std::mem::take(&mut entry.aliases);
            aliases.retain(|alias| !taken.contains(alias.as_str()));
            if let Some(done) = self.done.get(&entry.name) {
                *entry = done.clone();
            }
            entry.aliases.append(&mut aliases);
        }
        let names: BTreeSet<&str> = self.before.iter().map(|entry| &*entry.name).collect();
        let new = self
            .config
            .models
            .keys()
            .filter(|name| !names.contains(name.as_str()));
        entries.extend(new.filter_map(|name| self.done.get(name)).cloned());
        let default = self.config.default_model();
        let is_there = |name: &&str| {
            entries
                .iter()
                .any(|entry| entry.names().any(|n| n == *name))
        };
        let default = default.filter(is_there).or(match self.before.is_empty() {
            true => None,
            false => self.default_before.as_deref(),
        });
        let registry = ModelRegistry::new(entries.clone(), default, self.config.unknown_model);
        let max_inputs = self.config.server.max_inputs;
        let embedder = Embedder::new(registry, self.cache.clone(), max_inputs);
        self.manager.embedder.store(Some(Arc::new(embedder)));
    }
}

impl ModelManager {
    /// Takes a model that was removed out of the metrics.
    fn forget(&self, entry: &Entry) {
        if let Some(model) = entry.loaded() {
            self.metrics.forget_model(&entry.name, &model.info);
        }
    }
}

/// Bytes that an entry takes in memory.
fn memory(entry: &Entry) -> u64 {
    entry.loaded().map_or(0, |model| model.memory)
}

/// What a state means for who asked for a model.
fn change_to(state: &State, loaded: Change) -> Change {
    match state {
        State::OnDemand(_) => Change::OnDemand,
        State::Fetching(_) => Change::Fetching,
        State::Loaded(_) | State::Failed(_) | State::Loading => loaded,
    }
}

/// What has to be done for a model. Reads small files.
fn step(old: Option<Entry>, new: &Arc<ModelConfig>) -> Step {
    let Some(old) = old else {
        return Step::Load;
    };
    if old.config.with_settings_of_requests(new) != **new {
        return Step::Load;
    }
    let change = match *old.config == **new {
        true => Change::Kept,
        false => Change::Adjusted,
    };
    let state = match &old.state {
        // Under way: nothing has to be begun.
        State::Fetching(fetched) => State::Fetching(Arc::clone(fetched)),
        State::Loaded(model) if model.files().are_as_loaded() => match change {
            Change::Kept => return Step::Done(old, change),
            _ => {
                let Ok(plan) = load::plan(new) else {
                    return Step::Load;
                };
                State::Loaded(Arc::new(model.with_settings(new, plan.prompts)))
            }
        },
        _ => return Step::Load,
    };
    Step::Done(Entry::new(&old.name, new, state), change)
}

/// Runs what reads files apart from the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let work = tokio::task::spawn_blocking(work).await;
    work.map_err(|error| format!("a fault of embedgate: {error}"))
}
