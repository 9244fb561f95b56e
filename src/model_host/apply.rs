//! From the models that are served to those that a configuration names.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError},
};

use embedgate_config::{Config, LoadTime, ModelConfig};

use super::{Applied, Change, ModelHost, room::Beside};
use crate::{
    cache::EmbeddingCache,
    embed::Embedder,
    model::{
        About, Entry, ModelRegistry, State,
        load::{self, Plan},
    },
};

/// The step that a model needs.
enum Step {
    /// It has this state, or the one that it has; nothing more.
    Done(Option<State>, Change),
    /// It has to be loaded, or fetched.
    Load,
}

/// A model as the configuration has it.
struct Done {
    about: Arc<About>,
    /// None: the one that is published. So a change keeps no model in memory that left meanwhile.
    state: Option<State>,
}

/// A change from one configuration to another, half done.
struct Changing<'a> {
    host: &'a Arc<ModelHost>,
    config: &'a Config,
    cache: &'a EmbeddingCache,
    /// The models that were there and still are.
    before: Vec<Arc<About>>,
    /// The default model before the change, for requests that named no model.
    default_before: Option<String>,
    /// The models as the configuration has them, as far as they are ready.
    done: BTreeMap<String, Done>,
    applied: Applied,
}

impl ModelHost {
    /// Makes the models what the configuration says. A model is loaded beside the one whose place it takes, which serves until
    /// then, and on where the new one cannot be loaded; what is the same is not touched. Nothing is served before the first
    /// call ends.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        config: &Config,
        cache: &EmbeddingCache,
    ) -> Applied {
        let _alone = self.applying.lock().await;
        let limit = config.server.max_model_memory;
        *self
            .max_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = limit;
        self.forget_failures();
        let (before, default_before) = match self.embedder() {
            Some(embedder) => {
                let registry = embedder.registry();
                let entries = registry.entries().iter();
                (
                    entries.map(|entry| Arc::clone(&entry.about)).collect(),
                    registry.default_name().map(str::to_owned),
                )
            }
            None => (Vec::new(), None),
        };
        let changing = Changing {
            host: self,
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
        about: &Arc<About>,
        beside: Beside,
    ) -> Result<State, String> {
        if let (Some(problem), Some(source)) = (load::to_fetch(&about.config), &about.config.source)
        {
            return match self.fetcher {
                Some(_) => Ok(State::Fetching(self.fetched(&about.config.path, source))),
                None => Err(problem),
            };
        }
        if about.config.load == LoadTime::OnDemand {
            let planned = Arc::clone(about);
            let plan = blocking(move || load::plan(&planned.config)).await?;
            plan.map_err(|error| error.to_string())?;
            return Ok(State::OnDemand);
        }
        self.load(about, beside).await.map(State::Loaded)
    }
}

impl Changing<'_> {
    async fn run(mut self) -> Applied {
        let mut to_load = Vec::new();
        for (name, written) in &self.config.models {
            let old = self.host.entry(name);
            let config = Arc::new(written.clone());
            let (owned, settled) = (name.clone(), Arc::clone(&config));
            let host = Arc::clone(self.host);
            let looking = blocking(move || {
                let plan = load::plan(&settled).ok();
                let about = About {
                    outline: plan.as_ref().map(Plan::outline),
                    ..About::new(&owned, &settled)
                };
                let step = step(old.as_ref(), &settled, plan.as_ref());
                if let Step::Done(Some(State::Loaded(model)), _) = &step {
                    // Another prompt in front of every text makes other vectors.
                    host.served.note(&owned, model.files().space);
                }
                (step, Arc::new(about))
            });
            let (step, about) = match looking.await {
                Ok(found) => found,
                Err(_) => (Step::Load, Arc::new(About::new(name, &config))),
            };
            match step {
                Step::Done(state, change) => self.finish(about, state, change),
                Step::Load => to_load.push(about),
            }
        }
        let is_removed = |about: &&Arc<About>| !self.config.models.contains_key(&about.name);
        let removed: Vec<Arc<About>> = self.before.iter().filter(is_removed).cloned().collect();
        let mut of_removed = removed
            .iter()
            .map(|about| self.memory_of(&about.name))
            .sum();
        for about in &removed {
            self.applied.0.insert(about.name.clone(), Change::Removed);
        }
        if to_load.iter().any(|about| about.config.stop_first) {
            of_removed = 0;
            self.remove(&removed, &to_load).await;
        }
        {
            let _turn = self.host.turn.lock().await;
            self.publish_meanwhile();
        }
        for about in to_load {
            // Between two loads others may load what a request asks for.
            let _turn = self.host.turn.lock().await;
            self.load(&about, of_removed).await;
            self.publish_meanwhile();
        }
        let _turn = self.host.turn.lock().await;
        self.before.clear();
        self.publish();
        self.host.started.send_replace(true);
        self.host.fetch_all();
        self.applied
    }

    fn finish(&mut self, about: Arc<About>, state: Option<State>, change: Change) {
        self.applied.0.insert(about.name.clone(), change);
        self.done.insert(about.name.clone(), Done { about, state });
    }

    /// Bytes that a model takes which is served now.
    fn memory_of(&self, name: &str) -> u64 {
        let entry = self.host.entry(name);
        entry
            .and_then(|entry| Some(entry.loaded()?.memory))
            .unwrap_or(0)
    }

    /// Lets go of the models that are not named any more, before others are loaded. Names that are to come are there already.
    async fn remove(&mut self, removed: &[Arc<About>], to_load: &[Arc<About>]) {
        let _turn = self.host.turn.lock().await;
        let is_kept = |about: &Arc<About>| removed.iter().all(|removed| removed.name != about.name);
        self.before.retain(is_kept);
        for about in to_load {
            if self.host.entry(&about.name).is_none() {
                let state = Some(State::Loading);
                let about = Arc::clone(about);
                self.done.insert(about.name.clone(), Done { about, state });
            }
        }
        self.publish_meanwhile();
        self.host.wait_for_leaving().await;
    }

    /// Loads a model, beside the one whose place it takes or after that one is gone.
    async fn load(&mut self, about: &Arc<About>, of_removed: u64) {
        let name = &about.name;
        let old = self.host.entry(name);
        let Some((old, bytes)) = old.and_then(|old| {
            let bytes = old.loaded()?.memory;
            Some((old, bytes))
        }) else {
            let beside = Beside::Predecessor(of_removed);
            return match self.host.first_state(about, beside).await {
                Ok(state) => {
                    let change = change_to(&state, Change::Added);
                    self.finish(Arc::clone(about), Some(state), change);
                }
                Err(reason) => self.fail(about, reason),
            };
        };
        if load::to_fetch(&about.config).is_some() {
            // It would not serve for minutes.
            let path = about.config.path.display();
            let reason = format!(
                "{path} is not there, and is not fetched while the one before serves: `embedgate pull {} --to {path}`, and reload then",
                about
                    .config
                    .source
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            );
            return self.keep(&old.about, reason);
        }
        let before = Arc::clone(&old.about);
        // From here on nothing holds the model but those who serve it.
        drop(old);
        if about.config.stop_first {
            return self.load_after(about, &before).await;
        }
        // One that is in memory is not given up for one that was never loaded, wherever it is loaded on demand.
        let beside = Beside::Predecessor(bytes.saturating_add(of_removed));
        match self.host.load(about, beside).await {
            Ok(model) => {
                let state = Some(State::Loaded(model));
                self.finish(Arc::clone(about), state, Change::Exchanged);
            }
            Err(reason) => self.keep(&before, reason),
        }
    }

    /// Loads a model after the one before was stopped for it; that one again, where it cannot be. What can be known beforehand is
    /// looked at beforehand.
    async fn load_after(&mut self, about: &Arc<About>, before: &Arc<About>) {
        let (host, looked_at) = (Arc::clone(self.host), Arc::clone(about));
        let looking =
            blocking(move || load::inspect(&looked_at.name, &looked_at.config, &host.surroundings));
        let problem = match looking.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error),
        };
        if let Some(reason) = problem {
            return self.keep(before, reason);
        }
        let state = Some(State::Loading);
        let loading = Done {
            about: Arc::clone(about),
            state,
        };
        self.done.insert(about.name.clone(), loading);
        self.publish_meanwhile();
        self.host.wait_for_leaving().await;
        let reason = match self.host.load(about, Beside::Nothing).await {
            Ok(model) => {
                let state = Some(State::Loaded(model));
                return self.finish(Arc::clone(about), state, Change::Exchanged);
            }
            Err(reason) => reason,
        };
        match self.host.load(before, Beside::Nothing).await {
            Ok(model) => {
                self.keep(before, reason);
                if let Some(done) = self.done.get_mut(&before.name) {
                    done.state = Some(State::Loaded(model));
                }
            }
            Err(again) => {
                let reason = format!("{reason}; nor can the one before be loaded again: {again}");
                self.fail(about, reason);
            }
        }
    }

    fn fail(&mut self, about: &Arc<About>, reason: String) {
        let state = Some(State::Failed(reason.as_str().into()));
        let serves_as_before = false;
        let change = Change::Failed {
            reason,
            serves_as_before,
        };
        self.finish(Arc::clone(about), state, change);
    }

    /// Keeps a model whose successor cannot be loaded, under those of its names that no other model has now.
    fn keep(&mut self, about: &Arc<About>, reason: String) {
        let models = self.config.models.iter();
        let others = models.filter(|(name, _)| **name != about.name);
        let taken: BTreeSet<&String> = others
            .flat_map(|(name, model)| model.aliases.iter().chain([name]))
            .collect();
        let aliases = about.aliases.iter().filter(|alias| !taken.contains(alias));
        let about = About {
            aliases: aliases.cloned().collect(),
            ..About::clone(about)
        };
        let serves_as_before = true;
        let change = Change::Failed {
            reason,
            serves_as_before,
        };
        self.finish(Arc::new(about), None, change);
    }

    /// Publishes what is ready, beside what was there before. Nothing at the start, where all comes at once.
    fn publish_meanwhile(&mut self) {
        if self.host.embedder().is_some() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let current = self.host.embedder();
        let published = |name: &str| {
            let entry = current.as_ref()?.registry().entry(name)?;
            Some(entry.state.clone())
        };
        let mut entries = Vec::new();
        let taken: BTreeSet<&str> = self
            .done
            .values()
            .flat_map(|done| done.about.names())
            .collect();
        for before in &self.before {
            // Until the change is whole a name goes on meaning something.
            let own = before.aliases.iter();
            let own = own.filter(|alias| !taken.contains(alias.as_str())).cloned();
            let about = match self.done.get(&before.name) {
                Some(done) => done.about.with_more_aliases(own),
                None => About {
                    aliases: own.collect(),
                    ..About::clone(before)
                },
            };
            entries.push(about);
        }
        let names: BTreeSet<&str> = self.before.iter().map(|about| &*about.name).collect();
        let new = self.config.models.keys();
        let new = new.filter(|name| !names.contains(name.as_str()));
        let new = new.filter_map(|name| self.done.get(name));
        entries.extend(new.map(|done| About::clone(&done.about)));
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|about| {
                let done = self.done.get(&about.name);
                let own = done.and_then(|done| done.state.clone());
                let state = own.or_else(|| published(&about.name));
                Entry {
                    state: state.unwrap_or(State::Loading),
                    about: Arc::new(about),
                }
            })
            .collect();
        let default = self.config.default_model();
        let is_there = |name: &&str| {
            entries
                .iter()
                .any(|entry| entry.names().any(|n| n == *name))
        };
        let before = self.default_before.as_deref();
        let default = default
            .filter(is_there)
            .or(before.filter(|_| !self.before.is_empty()))
            .map(str::to_owned);
        drop(current);
        let unknown = self.config.unknown_model;
        let registry = ModelRegistry::new(entries, default.as_deref(), unknown);
        let max_inputs = self.config.server.max_inputs;
        self.host
            .replace(Embedder::new(registry, self.cache.clone(), max_inputs));
        // What is published holds them now.
        for done in self.done.values_mut() {
            done.state = None;
        }
    }
}

/// Returns the change that a state means for a caller who asked for a model.
fn change_to(state: &State, loaded: Change) -> Change {
    match state {
        State::OnDemand => Change::OnDemand,
        State::Fetching(_) => Change::Fetching,
        State::Loaded(_) | State::Failed(_) | State::Loading => loaded,
    }
}

/// Chooses the step that a model needs. Reads small files.
fn step(old: Option<&Entry>, new: &ModelConfig, plan: Option<&Plan>) -> Step {
    let Some(old) = old else {
        return Step::Load;
    };
    if old.config.with_settings_of_requests(new) != *new {
        return Step::Load;
    }
    let change = match *old.config == *new {
        true => Change::Kept,
        false => Change::Adjusted,
    };
    match &old.state {
        // Under way, from the same place: nothing has to be begun.
        State::Fetching(_) if old.config.source == new.source => Step::Done(None, change),
        State::OnDemand if new.load == LoadTime::OnDemand && plan.is_some() => {
            Step::Done(None, change)
        }
        State::Loaded(model) if model.files().are_as_loaded() => match change {
            Change::Kept => Step::Done(None, change),
            _ => match plan.map(|plan| model.with_settings(new, plan)) {
                Some(Ok(model)) => Step::Done(Some(State::Loaded(Arc::new(model))), change),
                _ => Step::Load,
            },
        },
        _ => Step::Load,
    }
}

/// Runs what reads files apart from the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let work = tokio::task::spawn_blocking(work).await;
    work.map_err(|error| format!("a fault of embedgate: {error}"))
}
