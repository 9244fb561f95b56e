//! The model of a request: found once, by the name that the client sent, and again only where a plugin names another.

use std::sync::Arc;

use embedgate_request::{Error, InputKind, Principal};

use crate::model::{Model, ModelRegistry, ModelState, RegistryEntry};

/// The model that a request is for, and that its caller may use. It may have to be loaded first.
#[derive(Clone)]
pub(crate) struct Target {
    /// The name as the client or a plugin says it; none means the default model.
    asked: Option<String>,
    /// The model's name in the answer: as it was asked for, or its own.
    shown: String,
    entry: RegistryEntry,
}

impl Target {
    /// Finds the model of a name, or the default one, for a caller.
    ///
    /// # Errors
    /// As [`ModelRegistry::find_for`].
    pub(crate) fn find(
        registry: &ModelRegistry,
        principal: &Principal,
        asked: Option<&str>,
    ) -> Result<Self, Error> {
        let entry = registry.find_for(principal, asked)?;
        let shown = asked.filter(|name| !name.is_empty());
        Ok(Self {
            asked: asked.map(str::to_owned),
            shown: shown.unwrap_or(&entry.name).to_owned(),
            entry: entry.clone(),
        })
    }

    /// The model that serves inputs of this kind, under the name that was asked for.
    ///
    /// # Errors
    /// As [`ModelRegistry::for_queries`].
    pub(crate) fn for_kind(self, registry: &ModelRegistry, kind: InputKind) -> Result<Self, Error> {
        if kind != InputKind::Query {
            return Ok(self);
        }
        match registry.for_queries(&self.entry)? {
            Some(entry) => Ok(self.with_entry(entry)),
            None => Ok(self),
        }
    }

    /// The model's name in the answer.
    pub(crate) fn name(&self) -> &str {
        &self.shown
    }

    /// The same, without the model in memory, which may leave.
    #[must_use]
    pub(crate) fn without_model(&self) -> Self {
        Self {
            entry: self.entry.without_model(),
            ..self.clone()
        }
    }

    /// Returns true when it was found by this name, or for want of one.
    pub(super) fn is_asked_as(&self, name: Option<&str>) -> bool {
        self.asked.as_deref() == name
    }

    /// The model as it is configured.
    pub(crate) fn entry(&self) -> &RegistryEntry {
        &self.entry
    }

    /// The model, which is in memory.
    ///
    /// # Errors
    /// `Unavailable` where it is not.
    pub(crate) fn model(&self) -> Result<&Arc<Model>, Error> {
        let model = self.entry.model()?;
        model.touch();
        Ok(model)
    }

    /// Returns true when the model is loaded by the first request that names it, which is this one.
    pub(crate) fn is_on_demand(&self) -> bool {
        matches!(self.entry.state, ModelState::OnDemand)
    }

    /// The same, in another state.
    #[must_use]
    pub(crate) fn with_entry(self, entry: &RegistryEntry) -> Self {
        Self {
            entry: entry.clone(),
            ..self
        }
    }
}
