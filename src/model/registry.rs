//! Models by name: what is loaded, what could not be, what is not loaded yet, and who answers when no model is named.

use std::{collections::HashMap, sync::Arc};

use embedgate_config::UnknownModel;
use embedgate_request::{Error, ErrorKind, Principal};

use super::{
    Model,
    entry::{ModelState, RegistryEntry, SOON},
};

/// A name that always means the default model, unless a model has it.
pub(crate) const DEFAULT: &str = "default";

/// All configured models. It is never changed: a reload puts another in its place.
#[derive(Clone)]
pub(crate) struct ModelRegistry {
    entries: Vec<RegistryEntry>,
    by_name: Arc<HashMap<String, usize>>,
    default: Option<usize>,
    /// The meaning of a name that no model has.
    unknown: UnknownModel,
}

impl ModelRegistry {
    /// Registers the models under their names and aliases; a name counts more than an alias.
    #[must_use]
    pub(crate) fn new(
        entries: Vec<RegistryEntry>,
        default: Option<&str>,
        unknown: UnknownModel,
    ) -> Self {
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
    pub(crate) fn with_state(&self, name: &str, state: ModelState) -> Self {
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
    pub(crate) fn entries(&self) -> &[RegistryEntry] {
        &self.entries
    }

    /// The model of this name in the configuration.
    #[must_use]
    pub(crate) fn entry(&self, name: &str) -> Option<&RegistryEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The model that takes this one's place for queries; none where it serves them itself.
    ///
    /// # Errors
    /// `Unavailable` where it is not there, or gives other results than this one.
    pub(crate) fn for_queries(
        &self,
        entry: &RegistryEntry,
    ) -> Result<Option<&RegistryEntry>, Error> {
        let Some(name) = entry.config.query_model.as_deref() else {
            return Ok(None);
        };
        let of = &entry.name;
        let unavailable = |problem: String| {
            let error = Error::unavailable(problem, SOON);
            error.with_code("model_unavailable")
        };
        let found = self.entry(name).ok_or_else(|| {
            unavailable(format!(
                "model \"{name}\", which serves the queries of \"{of}\", is not loaded yet"
            ))
        })?;
        if found.scores() {
            return Err(unavailable(format!(
                "query_model of \"{of}\" is \"{name}\", a reranker: name a model that gives vectors"
            )));
        }
        // What is not in memory may turn out to be otherwise than its folder says.
        if let (Some(own), Some(other)) = (entry.loaded(), found.loaded()) {
            let (own, other) = (&own.info, &other.info);
            if own.dimensions != other.dimensions {
                return Err(unavailable(format!(
                    "query_model of \"{of}\" is \"{name}\", whose vectors have {} numbers, and those of \"{of}\" have {}: name a \
                     model whose vectors can be compared",
                    other.dimensions, own.dimensions
                )));
            }
        }
        Ok(Some(found))
    }

    /// The models in memory.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.entries.iter().filter_map(RegistryEntry::loaded)
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
    ) -> Result<&RegistryEntry, Error> {
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
            if let ModelState::Loaded(model) = entry.state
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
        let usable = |entry: &&RegistryEntry| principal.may_use(entry.names());
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
