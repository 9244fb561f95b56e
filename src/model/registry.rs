//! Models by name: what is loaded, what could not be, what is not loaded yet, and who answers when no model is named.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use embedgate_config::{ModelConfig, UnknownModel};
use embedgate_request::{Error, ErrorKind, Principal};

use super::Model;

/// A name that always means the default model, unless a model has it.
pub(crate) const DEFAULT: &str = "default";

/// The time after which a request for a model that is on its way is to be repeated.
const SOON: Duration = Duration::from_secs(5);

/// The facts of a model from its configuration and its folder.
#[derive(Clone)]
pub(crate) struct About {
    /// Its name in the configuration.
    pub name: String,
    /// Other names that it is known by.
    pub aliases: Vec<String>,
    /// The model's table, as it is written.
    pub config: Arc<ModelConfig>,
    /// The facts from its folder, when that could be read.
    pub outline: Option<Outline>,
}

/// A configured model.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The facts of the model.
    pub about: Arc<About>,
    /// The state, which tells whether the model can be used.
    pub state: State,
}

impl Deref for Entry {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

/// The state of a model, which tells whether it can be used.
#[derive(Clone)]
pub(crate) enum State {
    /// It serves.
    Loaded(Arc<Model>),
    /// It could not be loaded; callers get the reason.
    Failed(Arc<str>),
    /// It is loaded when somebody asks for it.
    OnDemand,
    /// Its files are being fetched.
    Fetching(Arc<Fetched>),
    /// It is being loaded for the first time, or after its predecessor was stopped.
    Loading,
}

/// The facts of a model that are known before it is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outline {
    /// True when it scores pairs, and gives no vectors.
    pub scores: bool,
    /// Longest input in tokens.
    pub max_sequence_tokens: usize,
    /// Length of a vector.
    pub dimensions: usize,
}

/// The progress of fetching a model's files, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    done: AtomicU64,
    total: AtomicU64,
    /// The reason why the fetch stands still, until it is tried again.
    problem: Mutex<Option<String>>,
}

impl Fetched {
    /// Notes how far it is.
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "nothing is fetched"))]
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        *self.problem() = None;
    }

    /// Notes that it stands still.
    pub(crate) fn fail(&self, reason: String) {
        *self.problem() = Some(reason);
    }

    /// Bytes that are there, and all.
    pub(crate) fn get(&self) -> (u64, u64) {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (load(&self.done), load(&self.total))
    }

    fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl About {
    /// A model under its own aliases, of whose folder nothing is known.
    #[must_use]
    pub(crate) fn new(name: &str, config: &Arc<ModelConfig>) -> Self {
        Self {
            name: name.to_owned(),
            aliases: config.aliases.clone(),
            config: Arc::clone(config),
            outline: None,
        }
    }

    /// Returns the same facts with more aliases.
    #[must_use]
    pub(crate) fn with_more_aliases(&self, more: impl Iterator<Item = String>) -> Self {
        let mut about = self.clone();
        about.aliases.extend(more);
        about
    }

    /// Its name and its aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().map(String::as_str);
        std::iter::once(self.name.as_str()).chain(aliases)
    }
}

impl Entry {
    /// Returns the same entry without the model in memory.
    #[must_use]
    pub(crate) fn without_model(&self) -> Self {
        Self {
            about: Arc::clone(&self.about),
            state: State::Loading,
        }
    }

    /// The model, where it is in memory.
    #[must_use]
    pub(crate) fn loaded(&self) -> Option<&Arc<Model>> {
        match &self.state {
            State::Loaded(model) => Some(model),
            _ => None,
        }
    }

    /// Returns true when requests can be served: at once, or after the model is loaded for them.
    #[must_use]
    pub(crate) fn serves(&self) -> bool {
        match &self.state {
            State::Loaded(model) => model.batcher().is_healthy(),
            State::OnDemand => true,
            State::Failed(_) | State::Fetching(_) | State::Loading => false,
        }
    }

    /// Returns true when the model scores pairs, in any state; false when nothing is known of it.
    fn scores(&self) -> bool {
        match &self.state {
            State::Loaded(model) => model.info.outputs.score,
            _ => self.about.outline.is_some_and(|outline| outline.scores),
        }
    }

    /// Returns the facts of a model that serves, or that is loaded when a request names it.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub(crate) fn outline(&self) -> Result<Outline, Error> {
        match (&self.state, self.about.outline) {
            (State::OnDemand, Some(outline)) => Ok(outline),
            _ => self.model().map(|model| model.outline()),
        }
    }

    /// The model in memory.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub(crate) fn model(&self) -> Result<&Arc<Model>, Error> {
        let name = &self.name;
        let (message, retry_after) = match &self.state {
            State::Loaded(model) => return Ok(model),
            State::Failed(reason) => {
                let message = format!("model \"{name}\" could not be loaded: {reason}");
                return Err(Error::unavailable(message, Duration::from_secs(60))
                    .with_code("model_unavailable"));
            }
            State::Fetching(fetched) => {
                let message = match (&*fetched.problem(), fetched.get()) {
                    (Some(problem), _) => {
                        format!("model \"{name}\" cannot be fetched now: {problem}")
                    }
                    (None, (_, 0)) => format!("model \"{name}\" is being fetched"),
                    (None, (done, total)) => format!(
                        "model \"{name}\" is being fetched: {} of {} MB are there",
                        done / 1_000_000,
                        total / 1_000_000
                    ),
                };
                (message, Duration::from_secs(30))
            }
            State::OnDemand => (
                format!("model \"{name}\" is not in memory: a request for its results loads it"),
                SOON,
            ),
            State::Loading => (format!("model \"{name}\" is being loaded"), SOON),
        };
        let message = format!("{message}: try again later");
        Err(Error::unavailable(message, retry_after).with_code("loading"))
    }
}

/// All configured models. It is never changed: a reload puts another in its place.
#[derive(Clone)]
pub(crate) struct ModelRegistry {
    entries: Vec<Entry>,
    by_name: Arc<HashMap<String, usize>>,
    default: Option<usize>,
    /// The meaning of a name that no model has.
    unknown: UnknownModel,
}

impl ModelRegistry {
    /// Registers the models under their names and aliases; a name counts more than an alias.
    #[must_use]
    pub(crate) fn new(entries: Vec<Entry>, default: Option<&str>, unknown: UnknownModel) -> Self {
        let mut by_name = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            let aliases = entry.aliases.iter().cloned();
            by_name.extend(aliases.map(|alias| (alias, i)));
        }
        let named = entries.iter().enumerate();
        by_name.extend(named.map(|(i, entry)| (entry.name.clone(), i)));
        let default = default.and_then(|name| by_name.get(name).copied());
        Self {
            entries,
            by_name: Arc::new(by_name),
            default,
            unknown,
        }
    }

    /// Returns the same registry with another state of one model. Nothing changes when there is no such model.
    #[must_use]
    pub(crate) fn with_state(&self, name: &str, state: State) -> Self {
        let mut changed = self.clone();
        let entry = changed.entries.iter_mut().find(|entry| entry.name == name);
        if let Some(entry) = entry {
            entry.state = state;
        }
        changed
    }

    /// The name of the model that ranks, where the client names it so: for a client who names none, or one that is not here and
    /// means the default one, that is the only cross-encoder there is, unless the default model is one.
    #[must_use]
    pub(crate) fn name_for_ranking(&self, asked: Option<String>) -> Option<String> {
        let means_default = match &asked {
            None => true,
            Some(name) => {
                let means_any = self.find_for(&Principal::Anonymous, Some(name)).is_ok();
                !self.is_known(name) && means_any
            }
        };
        match self.only_reranker().filter(|_| means_default) {
            Some(reranker) => Some(reranker.to_owned()),
            None => asked,
        }
    }

    /// The only cross-encoder; none where the default model is one.
    fn only_reranker(&self) -> Option<&str> {
        if self.default.is_some_and(|i| self.entries[i].scores()) {
            return None;
        }
        let mut all = self.entries.iter().filter(|entry| entry.scores());
        let first = all.next()?;
        all.next().is_none().then_some(&*first.name)
    }

    /// The name of the model that answers where none is named.
    #[must_use]
    pub(crate) fn default_name(&self) -> Option<&str> {
        self.default.map(|i| self.entries[i].name.as_str())
    }

    /// Returns true when a model has this name.
    #[must_use]
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// All models in the order of the configuration.
    #[must_use]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The model of this name in the configuration.
    #[must_use]
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The models in memory.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.entries.iter().filter_map(Entry::loaded)
    }

    /// Finds a model in memory by name or alias; no name, or `default`, means the default model.
    ///
    /// # Errors
    /// `ModelNotFound`; `Unavailable` when the model is not in memory. What they say is for nobody: [`Self::resolve_for`]
    /// says what a caller may know.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<&Arc<Model>, Error> {
        self.resolve_for(&Principal::Anonymous, name)
    }

    /// Finds a model as [`Self::resolve`] does, for a caller, who is told only of the models that they may use.
    ///
    /// # Errors
    /// `ModelNotFound` that lists the names; `Forbidden`; `Unavailable` with the reason when the model is not in memory.
    pub(crate) fn resolve_for(
        &self,
        principal: &Principal,
        name: Option<&str>,
    ) -> Result<&Arc<Model>, Error> {
        self.find_for(principal, name)?.model()
    }

    /// Finds a configured model for a caller, whether it is in memory or not.
    ///
    /// # Errors
    /// `ModelNotFound` that lists the names; `Forbidden`.
    pub(crate) fn find_for(
        &self,
        principal: &Principal,
        name: Option<&str>,
    ) -> Result<&Entry, Error> {
        let named = name.and_then(|name| self.by_name.get(name).copied());
        let default = || {
            self.default
                .filter(|_| self.unknown == UnknownModel::Default)
        };
        let named = named.or_else(|| name.and(default()));
        let index = match (named, name) {
            (Some(index), _) => index,
            (None, None | Some(DEFAULT | "")) => self.default.ok_or_else(|| {
                let names = self.names(principal);
                Error::invalid("model", format!("model is missing, choose one of: {names}"))
            })?,
            (None, Some(name)) => return Err(self.not_found(principal, name)),
        };
        let entry = &self.entries[index];
        if !principal.may_use(entry.names()) {
            let shown = name.unwrap_or("default");
            let message = format!("you may not use model \"{shown}\"");
            return Err(Error::new(ErrorKind::Forbidden, message).with_code("model_not_allowed"));
        }
        Ok(entry)
    }

    /// Ends every model's queue and joins its worker. Blocks for the batches in flight.
    pub(crate) fn stop(self) {
        for entry in self.entries {
            // A model that somebody still holds ends when they let go of it.
            if let State::Loaded(model) = entry.state
                && let Some(model) = Arc::into_inner(model)
            {
                model.stop();
            }
        }
    }

    /// Makes the error of a name that no model has.
    #[must_use]
    pub(crate) fn not_found(&self, principal: &Principal, name: &str) -> Error {
        // A name is the client's text: long ones are cut, so that the answer stays short.
        let shown: String = name.chars().take(100).collect();
        let message = format!(
            "there is no model \"{shown}\", choose one of: {}",
            self.names(principal)
        );
        let error = Error {
            param: Some("model"),
            ..Error::new(ErrorKind::ModelNotFound, message)
        };
        error.with_code("model_not_found")
    }

    /// The names of the models that a caller may use.
    fn names(&self, principal: &Principal) -> String {
        let usable = |entry: &&Entry| principal.may_use(entry.names());
        let names: Vec<&str> = self
            .entries
            .iter()
            .filter(usable)
            .map(|entry| entry.name.as_str())
            .collect();
        match names.is_empty() {
            true => "none (no model is open to this key)".into(),
            false => names.join(", "),
        }
    }
}
