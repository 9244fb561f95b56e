//! A model that is loaded, and what can be asked of it. [`registry`] has all of them by name.

#[cfg(test)]
mod assemble;
pub(crate) mod calibrate;
mod checks;
pub(crate) mod devices;
pub(crate) mod engine;
mod entry;
mod fetched;
mod files;
pub(crate) mod fingerprint;
pub(crate) mod load;
pub(crate) mod load_context;
pub(crate) mod loader;
mod measurement_file;
pub(crate) mod memory;
mod pins;
pub(crate) mod placement;
pub(crate) mod prompts;
pub(crate) mod registry;
mod replicas;
pub(crate) mod resolved;
mod token_ratio;
pub(crate) mod tokenizer;
mod tokens;
mod usage;

use std::{io, sync::Arc};

use embedgate_config::ModelConfig;
use embedgate_core::{BackendInfo, Head, Pooling};
use embedgate_metrics::ModelMetrics;
use embedgate_request::Side;

#[cfg(test)]
pub(crate) use self::assemble::Parts as ModelParts;
use self::{
    devices::Skipped,
    load::Plan,
    prompts::Prompts,
    token_ratio::TokenRatio,
    tokenizer::{TextTokenizer, TokenizerPool},
    usage::LastUse,
};
pub(crate) use self::{
    entry::{About, ModelState, Outline, RegistryEntry},
    fetched::Fetched,
    files::Files,
    registry::{DEFAULT, ModelRegistry},
    usage::MemoryUse,
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
    /// The model's configuration, as it is written.
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

impl Model {
    /// Makes the same model with other settings for requests, and the prompts of a plan made with them.
    ///
    /// # Errors
    /// When its folder cannot be read, or the plan has another template of pairs, which its tokenizer threads do not know.
    pub(crate) fn with_settings(&self, config: &ModelConfig, plan: &Plan) -> io::Result<Self> {
        if !self.tokenizer.has_template(plan.template.as_ref()) {
            return Err(io::Error::other("the template of pairs is another"));
        }
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
            scores: self.info.outputs.has(Head::Score),
            max_sequence_tokens: self.info.max_sequence_tokens,
            dimensions: self.info.dimensions,
        }
    }

    /// Returns the identity of the files that the model was loaded from.
    #[must_use]
    pub(crate) fn files(&self) -> &Files {
        &self.files
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
}
