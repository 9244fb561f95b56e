//! Models by name: what is loaded, what could not be, and who answers when no model is named.

pub mod fingerprint;
pub mod load;
pub mod tokenizer;

use std::{collections::HashMap, sync::Arc, time::Duration};

use embedgate_core::BackendInfo;

use self::tokenizer::{Tokenized, TokenizerPool};
use crate::{
    batch::Batcher,
    config::{DimensionsPolicy, ModelConfig},
    error::{Error, ErrorKind},
    request::Input,
};

/// A model that is loaded and serves.
pub struct Model {
    /// Its name in the configuration.
    pub name: String,
    /// Facts of the loaded backend.
    pub info: BackendInfo,
    /// Identity of its vectors: weights, tokenizer, pooling, precision.
    pub fingerprint: blake3::Hash,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// Put in front of every text; may be empty.
    pub prompt: String,
    /// What the configuration says.
    pub config: ModelConfig,
    tokenizer: TokenizerPool,
    batcher: Batcher,
}

impl Model {
    /// The model's queue.
    #[must_use]
    pub fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    /// Turns an input into tokens on the model's tokenizer threads.
    ///
    /// # Errors
    /// Unavailable when the model is shutting down; `InvalidRequest` when the tokenizer refuses the text.
    pub async fn tokenize(&self, input: &Input) -> Result<Tokenized, Error> {
        match input {
            Input::Text(text) => {
                self.tokenizer
                    .encode(format!("{}{text}", self.prompt))
                    .await
            }
            Input::Tokens(ids) => Ok(Tokenized::native(ids, self.info.max_sequence_tokens)),
        }
    }

    /// Checks the request's `dimensions` against the model and its configuration.
    ///
    /// # Errors
    /// `InvalidRequest` that says what is allowed.
    pub fn check_dimensions(&self, dimensions: Option<usize>) -> Result<(), Error> {
        let own = self.info.dimensions;
        match dimensions {
            Some(n) if n > own => {
                let message = format!(
                    "dimensions must be at most {own} for model \"{}\", got {n}",
                    self.name
                );
                Err(Error::invalid("dimensions", message))
            }
            Some(n) if n < own && self.config.dimensions == DimensionsPolicy::Refuse => {
                let message = format!(
                    "dimensions must be {own} for model \"{}\", got {n}: its config refuses cutting",
                    self.name
                );
                Err(Error::invalid("dimensions", message))
            }
            _ => Ok(()),
        }
    }
}

/// A configured model.
pub enum Entry {
    /// It serves.
    Loaded(Arc<Model>),
    /// It could not be loaded; callers get the reason.
    Failed {
        /// Its name in the configuration.
        name: String,
        /// Why.
        reason: String,
    },
}

impl Entry {
    /// The model's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Loaded(model) => &model.name,
            Self::Failed { name, .. } => name,
        }
    }
}

/// All configured models.
pub struct ModelRegistry {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    default: Option<usize>,
}

impl ModelRegistry {
    /// Registers the models under their names and aliases.
    #[must_use]
    pub fn new(entries: Vec<(Entry, Vec<String>)>, default: Option<&str>) -> Self {
        let mut by_name = HashMap::new();
        let mut list = Vec::new();
        for (i, (entry, aliases)) in entries.into_iter().enumerate() {
            by_name.insert(entry.name().to_owned(), i);
            by_name.extend(aliases.into_iter().map(|alias| (alias, i)));
            list.push(entry);
        }
        let default = default.and_then(|name| by_name.get(name).copied());
        Self {
            entries: list,
            by_name,
            default,
        }
    }

    /// All models in the order of the configuration.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The models that serve.
    pub fn loaded(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Loaded(model) => Some(model),
            Entry::Failed { .. } => None,
        })
    }

    /// Finds a model by name or alias; no name, or `default`, means the default model.
    ///
    /// # Errors
    /// `ModelNotFound` that lists the names; `Unavailable` with the reason when the model could not be loaded.
    pub fn resolve(&self, name: Option<&str>) -> Result<&Arc<Model>, Error> {
        let named = name.and_then(|name| self.by_name.get(name).copied());
        let index = match (named, name) {
            (Some(index), _) => index,
            (None, None | Some("default" | "")) => self.default.ok_or_else(|| {
                Error::invalid(
                    "model",
                    format!("model is missing, choose one of: {}", self.names()),
                )
            })?,
            (None, Some(name)) => return Err(self.not_found(name)),
        };
        match &self.entries[index] {
            Entry::Loaded(model) => Ok(model),
            Entry::Failed { name, reason } => {
                let message = format!("model \"{name}\" could not be loaded: {reason}");
                Err(Error::unavailable(message, Duration::from_secs(60))
                    .with_code("model_unavailable"))
            }
        }
    }

    /// Ends every model's queue and joins its worker. Blocks for the batches in flight.
    pub fn stop(self) {
        for entry in self.entries {
            // A model that somebody still holds ends when they let go of it.
            if let Entry::Loaded(model) = entry
                && let Some(model) = Arc::into_inner(model)
            {
                model.batcher.stop();
            }
        }
    }

    fn not_found(&self, name: &str) -> Error {
        // A name is the client's text: long ones are cut, so that the answer stays short.
        let shown: String = name.chars().take(100).collect();
        let message = format!(
            "there is no model \"{shown}\", choose one of: {}",
            self.names()
        );
        let error = Error {
            param: Some("model"),
            ..Error::new(ErrorKind::ModelNotFound, message)
        };
        error.with_code("model_not_found")
    }

    fn names(&self) -> String {
        self.entries
            .iter()
            .map(Entry::name)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
