//! A model over backends that are there already, for tests.

use std::sync::Arc;

use embedgate_config::ModelConfig;
use embedgate_core::{Backend, Pooling};
use embedgate_metrics::Metrics;

use super::{
    Model,
    files::Files,
    fingerprint::Identity,
    prompts::Prompts,
    token_ratio::TokenRatio,
    tokenizer::{TextTokenizer, TokenizerPool},
    usage::LastUse,
};
use crate::batch::{Batcher, BatcherConfig, Reload};

/// The parts of a model.
pub(crate) struct Parts<'a> {
    pub config: ModelConfig,
    pub backends: Vec<Box<dyn Backend>>,
    pub reload: &'a Reload,
    pub batching: BatcherConfig,
    pub tokenizer: &'a TextTokenizer,
    pub metrics: &'a Metrics,
}

impl Model {
    /// A model over backends that are there already, for tests.
    pub(crate) fn assemble(name: &str, parts: Parts<'_>) -> Self {
        let Parts {
            config,
            backends,
            reload,
            batching,
            tokenizer,
            metrics,
        } = parts;
        let info = backends[0].info().clone();
        let with_reload = |backend| (backend, Arc::clone(reload));
        let backends = backends.into_iter().map(with_reload).collect();
        let metrics = metrics.model(name);
        Self {
            name: name.into(),
            info,
            fingerprint: blake3::hash(name.as_bytes()),
            pooling: Pooling::CLS,
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
}
