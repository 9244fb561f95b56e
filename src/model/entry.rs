//! A configured model: what is known of it, and its state.

use std::{ops::Deref, sync::Arc, time::Duration};

use embedgate_config::ModelConfig;
use embedgate_core::Head;
use embedgate_request::Error;

use super::{Model, fetched::Fetched};

/// The time after which a request for a model that is on its way is to be repeated.
pub(super) const SOON: Duration = Duration::from_secs(5);

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
pub(crate) struct RegistryEntry {
    /// The facts of the model.
    pub about: Arc<About>,
    /// The state, which tells whether the model can be used.
    pub state: ModelState,
}

impl Deref for RegistryEntry {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

/// The state of a model, which tells whether it can be used.
#[derive(Clone)]
pub(crate) enum ModelState {
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

impl RegistryEntry {
    /// Returns the same entry without the model in memory.
    #[must_use]
    pub(crate) fn without_model(&self) -> Self {
        Self {
            about: Arc::clone(&self.about),
            state: ModelState::Loading,
        }
    }

    /// The model, where it is in memory.
    #[must_use]
    pub(crate) fn loaded(&self) -> Option<&Arc<Model>> {
        match &self.state {
            ModelState::Loaded(model) => Some(model),
            _ => None,
        }
    }

    /// Returns true when requests can be served: at once, or after the model is loaded for them.
    #[must_use]
    pub(crate) fn serves(&self) -> bool {
        match &self.state {
            ModelState::Loaded(model) => model.batcher().is_healthy(),
            ModelState::OnDemand => true,
            ModelState::Failed(_) | ModelState::Fetching(_) | ModelState::Loading => false,
        }
    }

    /// Returns true when the model scores pairs, in any state; false when nothing is known of it.
    pub(crate) fn scores(&self) -> bool {
        match &self.state {
            ModelState::Loaded(model) => model.info.outputs.has(Head::Score),
            _ => self.about.outline.is_some_and(|outline| outline.scores),
        }
    }

    /// Returns the facts of a model that serves, or that is loaded when a request names it.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub(crate) fn outline(&self) -> Result<Outline, Error> {
        match (&self.state, self.about.outline) {
            (ModelState::OnDemand, Some(outline)) => Ok(outline),
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
            ModelState::Loaded(model) => return Ok(model),
            ModelState::Failed(reason) => {
                let message = format!("model \"{name}\" could not be loaded: {reason}");
                return Err(Error::unavailable(message, Duration::from_secs(60))
                    .with_code("model_unavailable"));
            }
            ModelState::Fetching(fetched) => {
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
            ModelState::OnDemand => (
                format!("model \"{name}\" is not in memory: a request for its results loads it"),
                SOON,
            ),
            ModelState::Loading => (format!("model \"{name}\" is being loaded"), SOON),
        };
        let message = format!("{message}: try again later");
        Err(Error::unavailable(message, retry_after).with_code("loading"))
    }
}
