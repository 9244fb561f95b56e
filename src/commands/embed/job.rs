//! The model that texts are embedded with, and what is asked of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embedgate_config::{ByteSize, CacheConfig, Config, Environment, ModelConfig, UnknownModel};
use embedgate_core::Outputs;
use embedgate_metrics::Metrics;
use embedgate_request::{
    Account, Begun, EmbedRequest, Embedding, Error, ErrorKind, Input::Text, Lane, Principal,
    RequestContext,
};

use super::{Failure, IN_FLIGHT, LINES};
use crate::{
    args::embed::EmbedArgs,
    cache::EmbeddingCache,
    embed::{Embedder, Preprocessed},
    model::{
        About, ModelRegistry, ModelState, RegistryEntry,
        load::{self, Loading},
        load_context::LoadContext,
    },
};

/// Equal texts are computed once where they are not far apart: what takes more would grow with the input.
const CACHE: ByteSize = ByteSize::mib(32);

/// No deadline: no client waits.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A model, and what is asked of it.
pub(super) struct EmbedJob {
    pub(super) embedder: Embedder,
    pub(super) most_at_once: usize,
    pub(super) outputs: Outputs,
    pub(super) dimensions: Option<usize>,
}

impl EmbedJob {
    /// Loads just the model that is asked for, and measures how many rows may be on their way at once.
    pub(super) fn load(
        config: &Config,
        args: &EmbedArgs,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let context = LoadContext::new(config, environment);
        let metrics = Metrics::new();
        let (name, model) = named(config, args)?;
        let loading = Loading {
            context: &context,
            metrics: &metrics,
            room: &|_| Ok(()),
        };
        let config = Arc::new(model.clone());
        let model =
            load::load(name, model, loading).map_err(|e| anyhow::anyhow!("model {name}: {e}"))?;
        let most_at_once = model.batcher().most_at_once(Lane::Bulk);
        let most_at_once = most_at_once.min(IN_FLIGHT * LINES);
        let cache = CacheConfig {
            max_size: CACHE,
            ..CacheConfig::default()
        };
        let entry = RegistryEntry {
            about: Arc::new(About::new(name, &config)),
            state: ModelState::Loaded(Arc::new(model)),
        };
        let registry = ModelRegistry::new(vec![entry], Some(name), UnknownModel::Refuse);
        let cache = EmbeddingCache::new(&cache, None, &metrics);
        Ok(Self {
            embedder: Embedder::new(registry, cache, LINES),
            most_at_once,
            outputs: outputs(args),
            dimensions: args.dimensions.filter(|n| *n > 0),
        })
    }

    /// Embeds texts together; where one of them is at fault, each by itself.
    pub(super) async fn embed(
        self: Arc<Self>,
        texts: Vec<String>,
    ) -> Result<Vec<Result<Embedding, Error>>, Error> {
        match self.embed_together(texts.clone()).await {
            Ok(embeddings) => Ok(embeddings.into_iter().map(Ok).collect()),
            Err(error) if error.kind == ErrorKind::InvalidRequest => {
                let mut all = Vec::new();
                for text in texts {
                    all.push(match self.embed_together(vec![text]).await {
                        Ok(mut embeddings) => embeddings.pop().ok_or(error.clone()),
                        Err(own) if own.kind == ErrorKind::InvalidRequest => Err(own),
                        Err(other) => return Err(other),
                    });
                }
                Ok(all)
            }
            Err(error) => Err(error),
        }
    }

    /// Embeds texts in one request.
    pub(super) async fn embed_together(&self, texts: Vec<String>) -> Result<Vec<Embedding>, Error> {
        let request = EmbedRequest {
            outputs: self.outputs,
            dimensions: self.dimensions,
            ..EmbedRequest::new(texts.into_iter().map(Text).collect())
        };
        let ctx = RequestContext {
            id: "embed".into(),
            principal: Principal::Anonymous,
            deadline: Instant::now() + NO_DEADLINE,
            lane: Some(Lane::Bulk),
            memory: Account::unlimited(),
            timings: Arc::default(),
            // Nobody else waits, and nobody comes back later.
            begun: Arc::new(Begun::already()),
        };
        let request = Preprocessed::unchanged(request, self.embedder.target(&ctx, None)?);
        let answer = self.embedder.pipeline().embed(&ctx, request).await?;
        Ok(answer.embeddings)
    }
}

/// The outputs that the command line asks for.
pub(super) fn outputs(args: &EmbedArgs) -> Outputs {
    args.outputs.iter().copied().collect()
}

/// The model that is named, or the default one.
fn named<'a>(
    config: &'a Config,
    args: &EmbedArgs,
) -> Result<(&'a String, &'a ModelConfig), Failure> {
    let asked = args.model.as_deref().or(config.default_model());
    let has_name = |(name, model): &(&String, &ModelConfig)| {
        asked
            .is_some_and(|asked| *name == asked || model.aliases.iter().any(|alias| alias == asked))
    };
    config.models.iter().find(has_name).ok_or_else(|| {
        let names: Vec<_> = config.models.keys().map(String::as_str).collect();
        let asked = asked
            .map(|name| format!("there is no model \"{name}\""))
            .unwrap_or("no model is named".into());
        Failure::Config(anyhow::anyhow!(
            "{asked}: choose one with --model: {}",
            names.join(", ")
        ))
    })
}
