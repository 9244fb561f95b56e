//! A model that is loaded, and what can be asked of it. [`registry`] has all of them by name.

pub(crate) mod calibrate;
pub(crate) mod devices;
pub(crate) mod engine;
pub(crate) mod fingerprint;
mod kept;
pub(crate) mod load;
pub(crate) mod memory;
mod pins;
pub(crate) mod prompts;
pub(crate) mod registry;
mod replicas;
pub(crate) mod surroundings;
pub(crate) mod tokenizer;

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_config::{DimensionsPolicy, ModelConfig};
use embedgate_core::{BackendInfo, Outputs, Pooling};
use embedgate_metrics::ModelMetrics;
use embedgate_request::{Error, Input, Lane, MOST_COUNTED, Side, Truncation};

pub(crate) use self::registry::{About, DEFAULT, Entry, Fetched, ModelRegistry, Outline, State};
use self::{
    devices::Skipped,
    fingerprint::{Depth, Identity},
    load::Plan,
    prompts::Prompts,
    tokenizer::{Cutting, Parts, TextTokenizer, Tokenized, TokenizerPool, pair::Query},
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
    /// The method that makes one vector of the token vectors.
    pub pooling: Pooling,
    /// True when vectors are normalized to length 1.
    pub normalize: bool,
    /// The prompts that can be put in front of texts.
    pub prompts: Prompts,
    /// For what needs no model: counting tokens, and their names.
    pub tokenizer: TextTokenizer,
    /// The model's configuration.
    pub config: ModelConfig,
    /// The devices before its own that it could not run on, where its configuration left that open.
    pub skipped: Vec<Skipped>,
    /// The model's metrics.
    pub metrics: ModelMetrics,
    /// Bytes that it takes in the machine's memory, by estimate.
    pub memory: u64,
    files: Files,
    tokenizing: Arc<TokenizerPool>,
    batcher: Arc<Batcher>,
    token_ratio: Arc<TokenRatio>,
    last_use: Arc<LastUse>,
}

/// The identity of the files that a model was loaded from.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// The facts from which the model's identity is found once more.
    identity: Identity,
    /// The identity at the load, at [`Depth::ThisProcess`].
    stamp: blake3::Hash,
    /// The hash that models share when their vectors can be compared.
    pub(crate) space: blake3::Hash,
}

impl Files {
    /// Returns true when the files are still those that were loaded.
    pub(crate) fn are_as_loaded(&self) -> bool {
        self.identity
            .at(Depth::ThisProcess)
            .is_ok_and(|stamp| stamp == self.stamp)
    }
}

/// The memory of a model, as long as anybody holds it.
pub(crate) struct MemoryUse {
    bytes: u64,
    holder: Weak<Batcher>,
}

impl MemoryUse {
    /// In bytes, by estimate.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns true while the model is held.
    pub(crate) fn is_held(&self) -> bool {
        self.holder.strong_count() > 0
    }
}

/// The time of a model's last use, in milliseconds since `started`.
#[derive(Debug)]
struct LastUse {
    started: Instant,
    milliseconds: AtomicU64,
}

impl LastUse {
    fn now() -> Self {
        Self {
            started: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }
    }
}

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
            tokenizing: Arc::new(TokenizerPool::start(name, tokenizer, 2).unwrap()),
            batcher: Arc::new(Batcher::start(name, backends, batching, &metrics)),
            skipped: Vec::new(),
            memory: 0,
            files: Files {
                identity: Identity::of_nothing(),
                stamp: blake3::hash(name.as_bytes()),
                space: blake3::hash(name.as_bytes()),
            },
            config,
            metrics,
            token_ratio: Arc::new(TokenRatio::new()),
            last_use: Arc::new(LastUse::now()),
        }
    }

    /// Makes the same model with other settings for requests, and the prompts of a plan made with them.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub(crate) fn with_settings(&self, config: &ModelConfig, plan: &Plan) -> io::Result<Self> {
        let space = plan.vector_space()?;
        Ok(Self {
            name: self.name.clone(),
            info: self.info.clone(),
            fingerprint: self.fingerprint,
            pooling: self.pooling,
            normalize: self.normalize,
            prompts: plan.prompts.clone(),
            tokenizer: self.tokenizer.clone(),
            config: self.config.with_settings_of_requests(config),
            skipped: self.skipped.clone(),
            metrics: self.metrics.clone(),
            memory: self.memory,
            files: Files {
                space,
                ..self.files.clone()
            },
            tokenizing: Arc::clone(&self.tokenizing),
            batcher: Arc::clone(&self.batcher),
            token_ratio: Arc::clone(&self.token_ratio),
            last_use: Arc::clone(&self.last_use),
        })
    }

    /// Returns true when both are one model in memory, under other settings perhaps.
    #[must_use]
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.batcher, &other.batcher)
    }

    /// Returns the facts that stay known when the model has left the memory.
    #[must_use]
    pub(crate) fn outline(&self) -> Outline {
        Outline {
            scores: self.info.outputs.score,
            max_sequence_tokens: self.info.max_sequence_tokens,
            dimensions: self.info.dimensions,
        }
    }

    /// Returns the identity of the files that the model was loaded from.
    #[must_use]
    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// Notes that somebody uses it.
    pub(crate) fn touch(&self) {
        let now = self.last_use.started.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.last_use.milliseconds.store(now, Ordering::Relaxed);
    }

    /// For how long nobody has used it.
    #[must_use]
    pub(crate) fn unused_for(&self) -> Duration {
        if self.batcher.in_flight() > 0 {
            return Duration::ZERO;
        }
        let last = self.last_use.milliseconds.load(Ordering::Relaxed);
        let since = self.last_use.started.elapsed();
        since.saturating_sub(Duration::from_millis(last))
    }

    /// Returns the memory that the model takes, to be counted as long as the model is there.
    #[must_use]
    pub(crate) fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            bytes: self.memory,
            holder: Arc::downgrade(&self.batcher),
        }
    }

    /// Ends its queue where nobody else holds it, and joins its workers. Blocks for the batches in flight.
    pub(crate) fn stop(self) {
        if let Some(batcher) = Arc::into_inner(self.batcher) {
            batcher.stop();
        }
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

    /// Counts the tokens that a text may have behind a prompt.
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

    /// Returns the tokens that an input counts for when memory is reserved for results by token. The result has a lower
    /// bound, because the estimate follows the latest texts and no caller may bring it near 0.
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
