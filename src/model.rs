//! Models by name: what is loaded, what could not be, and who answers when no model is named.

pub(crate) mod calibrate;
pub(crate) mod devices;
pub(crate) mod engine;
pub(crate) mod fingerprint;
mod kept;
pub(crate) mod load;
mod memory;
mod pins;
pub(crate) mod prompts;
mod replicas;
pub(crate) mod surroundings;
pub(crate) mod tokenizer;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use embedgate_config::{DimensionsPolicy, ModelConfig, UnknownModel};
use embedgate_core::{BackendInfo, Outputs, Pooling};
use embedgate_metrics::ModelMetrics;
use embedgate_request::{Error, ErrorKind, Input, Lane, MOST_COUNTED, Principal, Side, Truncation};

use self::{
    devices::Skipped,
    prompts::Prompts,
    tokenizer::{Cutting, Parts, Query, TextTokenizer, Tokenized, TokenizerPool},
};
use crate::batch::Batcher;

/// A model that is loaded and serves.
pub(crate) struct Model {
    /// Its name in the configuration.
    pub name: String,
    /// Facts of the loaded backend.
    pub info: BackendInfo,
    /// Identity of its vectors: weights, tokenizer, pooling, precision.
    pub fingerprint: blake3::Hash,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// What can be put in front of texts.
    pub prompts: Prompts,
    /// For what needs no model: counting tokens, and their names.
    pub tokenizer: TextTokenizer,
    /// What the configuration says.
    pub config: ModelConfig,
    /// The devices before its own that it could not run on, where its configuration left that open.
    pub skipped: Vec<Skipped>,
    /// What is counted of it.
    pub metrics: ModelMetrics,
    tokenizing: TokenizerPool,
    batcher: Batcher,
    token_ratio: TokenRatio,
}

/// A name that always means the default model, unless a model has it.
pub(crate) const DEFAULT: &str = "default";

/// Tokens a byte of text, lately: for estimates before a text is tokenized.
struct TokenRatio(AtomicU64);

impl TokenRatio {
    /// English has about 4 bytes a token, which is a start.
    fn new() -> Self {
        Self(AtomicU64::new(0.25_f64.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn observe(&self, bytes: usize, tokens: usize) {
        if bytes > 0 {
            let ratio = self.get() * 0.98 + tokens as f64 / bytes as f64 * 0.02;
            self.0.store(ratio.to_bits(), Ordering::Relaxed);
        }
    }
}

impl Model {
    /// A model over backends that are there already, for tests.
    #[cfg(test)]
    pub(crate) fn assemble(
        name: &str,
        config: ModelConfig,
        backends: Vec<Box<dyn embedgate_core::Backend>>,
        reload: &crate::batch::Reload,
        batching: crate::batch::BatcherConfig,
        tokenizer: &tokenizer::TextTokenizer,
        metrics: &embedgate_metrics::Metrics,
    ) -> Self {
        let info = backends[0].info().clone();
        let with_reload = |backend| (backend, std::sync::Arc::clone(reload));
        let backends = backends.into_iter().map(with_reload).collect();
        let metrics = metrics.model(name);
        Self {
            name: name.into(),
            info,
            fingerprint: blake3::hash(name.as_bytes()),
            pooling: Pooling::Cls,
            normalize: true,
            prompts: Prompts::default(),
            tokenizer: tokenizer.clone(),
            tokenizing: TokenizerPool::start(name, tokenizer, 2).unwrap(),
            batcher: Batcher::start(name, backends, batching, &metrics),
            skipped: Vec::new(),
            config,
            metrics,
            token_ratio: TokenRatio::new(),
        }
    }

    /// Its name and its aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.config.aliases.iter().map(String::as_str);
        std::iter::once(self.name.as_str()).chain(aliases)
    }

    /// The side that a text loses where a request says nothing of it.
    #[must_use]
    pub(crate) fn side(&self) -> Side {
        self.tokenizer.side()
    }

    /// The model's queue.
    #[must_use]
    pub(crate) fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    /// Turns an input into tokens on the model's tokenizer threads: a text behind a prompt, cut on one side.
    ///
    /// # Errors
    /// Unavailable when the model is shutting down; `InvalidRequest` when the tokenizer refuses the text.
    pub(crate) async fn tokenize(
        &self,
        prompt: &str,
        input: &Input,
        truncation: Truncation,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        match input {
            Input::Text(text) => {
                let text = Arc::new(format!("{prompt}{text}"));
                let bytes = text.len();
                let tokens = self.tokenizing.encode(text, truncation, lane).await?;
                self.observe_ratio(bytes, tokens.n_tokens_full);
                Ok(tokens)
            }
            Input::Tokens(ids) => {
                let most = truncation.most_tokens(self.info.max_sequence_tokens);
                Ok(Tokenized::native(ids, most, truncation.side()))
            }
        }
    }

    /// Learns how many tokens texts have; not of one that was not counted to its end.
    fn observe_ratio(&self, bytes: usize, n_tokens: usize) {
        if n_tokens <= MOST_COUNTED {
            self.token_ratio.observe(bytes, n_tokens);
        }
    }

    /// Turns a query into tokens, for as many pairs as there are.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn tokenize_query(&self, query: String, lane: Lane) -> Result<Query, Error> {
        self.tokenizing.encode_query(Arc::new(query), lane).await
    }

    /// Turns a query and a text that may answer it into tokens; the text is cut on one side.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn tokenize_pair(
        &self,
        query: &Arc<Query>,
        text: Arc<String>,
        side: Side,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        let bytes = text.len();
        let encoding = self.tokenizing.encode_pair(query, text, side, lane);
        let tokens = encoding.await?;
        let of_text = tokens.n_tokens_full - query.n_tokens();
        self.observe_ratio(bytes, of_text);
        Ok(tokens)
    }

    /// Cuts a text into parts on the model's tokenizer threads.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn parts(
        &self,
        text: &Arc<String>,
        cutting: Cutting,
        lane: Lane,
    ) -> Result<Parts, Error> {
        self.tokenizing.parts(text, cutting, lane).await
    }

    /// How many tokens a text may have behind a prompt.
    ///
    /// # Errors
    /// As [`Model::tokenize`].
    pub(crate) async fn room_behind(&self, prompt: Arc<str>, lane: Lane) -> Result<usize, Error> {
        let bytes = prompt.len();
        let count =
            move |tokenizer: &TextTokenizer, _: &dyn Fn() -> bool| tokenizer.room_behind(&prompt);
        self.tokenizing.run(bytes, lane, count).await
    }

    /// About how many tokens an input has, at least 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length times a small positive number"
    )]
    pub(crate) fn estimate_tokens(&self, input: &Input) -> usize {
        let n = match input {
            Input::Text(text) => (text.len() as f64 * self.token_ratio.get()) as usize,
            Input::Tokens(ids) => ids.len(),
        };
        n.clamp(1, self.info.max_sequence_tokens)
    }

    /// How many tokens an input counts for where memory is reserved for results by token: the estimate follows whatever
    /// texts came lately, and nobody shall bring it near 0.
    #[must_use]
    pub(crate) fn reserve_tokens(&self, input: &Input) -> usize {
        let least = match input {
            Input::Text(text) => text.len() / 4 + 4,
            Input::Tokens(ids) => ids.len(),
        };
        let n = self.estimate_tokens(input).max(least);
        n.min(self.info.max_sequence_tokens)
    }

    /// Checks what is asked for against what the model gives.
    ///
    /// # Errors
    /// `InvalidRequest` that says what it gives.
    pub(crate) fn check_outputs(&self, outputs: Outputs) -> Result<(), Error> {
        if self.info.outputs.contains(outputs) {
            return Ok(());
        }
        let message = format!(
            "model \"{}\" gives {}, not {outputs}",
            self.name, self.info.outputs
        );
        Err(Error::invalid("outputs", message))
    }

    /// Checks the request's `dimensions` against the model and its configuration.
    ///
    /// # Errors
    /// `InvalidRequest` that says what is allowed.
    pub(crate) fn check_dimensions(&self, dimensions: Option<usize>) -> Result<(), Error> {
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
pub(crate) enum Entry {
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
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Loaded(model) => &model.name,
            Self::Failed { name, .. } => name,
        }
    }
}

/// All configured models.
pub(crate) struct ModelRegistry {
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    default: Option<usize>,
    /// What a name that no model has means.
    unknown: UnknownModel,
}

impl ModelRegistry {
    /// The model that reranks where none is named: the default one if it is a cross-encoder, else the only cross-encoder
    /// there is. None: the default model.
    #[must_use]
    pub(crate) fn reranker(&self) -> Option<&str> {
        let scores = |model: &&Arc<Model>| model.info.outputs.score;
        if self.resolve(None).is_ok_and(|model| scores(&model)) {
            return None;
        }
        let mut all = self.loaded().filter(scores);
        let first = all.next()?;
        all.next().is_none().then_some(&*first.name)
    }

    /// Registers the models under their names and aliases.
    #[must_use]
    pub(crate) fn new(entries: Vec<(Entry, Vec<String>)>, default: Option<&str>) -> Self {
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
            unknown: UnknownModel::Refuse,
        }
    }

    /// The same, where a name that no model has means this.
    #[must_use]
    pub(crate) fn with_unknown(self, unknown: UnknownModel) -> Self {
        Self { unknown, ..self }
    }

    /// Whether a model has this name.
    #[must_use]
    pub(crate) fn is_known(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// All models in the order of the configuration.
    #[must_use]
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The models that serve.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Loaded(model) => Some(model),
            Entry::Failed { .. } => None,
        })
    }

    /// Finds a model by name or alias; no name, or `default`, means the default model.
    ///
    /// # Errors
    /// `ModelNotFound`; `Unavailable` when the model could not be loaded. What they say is for nobody: [`Self::resolve_for`]
    /// says what a caller may know.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<&Arc<Model>, Error> {
        self.resolve_for(&Principal::Anonymous, name)
    }

    /// The same for a caller, who is told of no model but those that they may use.
    ///
    /// # Errors
    /// `ModelNotFound` that lists the names; `Forbidden`; `Unavailable` with the reason when the model could not be loaded.
    pub(crate) fn resolve_for(
        &self,
        principal: &Principal,
        name: Option<&str>,
    ) -> Result<&Arc<Model>, Error> {
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
        if !self.may_use(principal, index) {
            let shown = name.unwrap_or("default");
            let message = format!("you may not use model \"{shown}\"");
            return Err(Error::new(ErrorKind::Forbidden, message).with_code("model_not_allowed"));
        }
        match &self.entries[index] {
            Entry::Loaded(model) => Ok(model),
            Entry::Failed { name, reason } => {
                let message = format!("model \"{name}\" could not be loaded: {reason}");
                Err(Error::unavailable(message, Duration::from_secs(60))
                    .with_code("model_unavailable"))
            }
        }
    }

    /// Whether a caller may use an entry, by any of its names.
    fn may_use(&self, principal: &Principal, index: usize) -> bool {
        let of_entry = self.by_name.iter().filter(|(_, i)| **i == index);
        principal.may_use(of_entry.map(|(name, _)| name.as_str()))
    }

    /// Ends every model's queue and joins its worker. Blocks for the batches in flight.
    pub(crate) fn stop(self) {
        for entry in self.entries {
            // A model that somebody still holds ends when they let go of it.
            if let Entry::Loaded(model) = entry
                && let Some(model) = Arc::into_inner(model)
            {
                model.batcher.stop();
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
        let entries = self.entries.iter().enumerate();
        let usable = entries.filter(|(index, _)| self.may_use(principal, *index));
        let names: Vec<&str> = usable.map(|(_, entry)| entry.name()).collect();
        match names.is_empty() {
            true => "none (no model is open to this key)".into(),
            false => names.join(", "),
        }
    }
}
