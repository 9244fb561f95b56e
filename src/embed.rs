//! The pipeline: one request in, one answer out, in one straight function.

mod inputs;
mod vector;

use std::sync::Arc;

use embedgate_core::Outputs;
use futures_util::future::try_join_all;

use self::inputs::Prepared;
use crate::{
    batch::Admission,
    cache::{CacheKey, CachedEmbedding, EmbeddingCache},
    error::{Error, ErrorKind},
    model::{Model, ModelRegistry},
    offload,
    request::{EmbedRequest, EmbedResponse, Input, RequestContext},
};

/// Requests with at least so many bytes of input are prepared off the threads that serve connections: about 1 ms.
const PREPARE_ELSEWHERE: usize = 512 << 10;
/// Vectors of at least so many numbers are cut and normalized there too: about 1 ms.
const FINISH_ELSEWHERE: usize = 500_000;

/// The service behind every dialect.
pub struct Embedder {
    registry: ModelRegistry,
    cache: EmbeddingCache,
    max_inputs: usize,
}

impl Embedder {
    /// Puts the service together.
    #[must_use]
    pub fn new(registry: ModelRegistry, cache: EmbeddingCache, max_inputs: usize) -> Self {
        Self {
            registry,
            cache,
            max_inputs,
        }
    }

    /// The models.
    #[must_use]
    pub fn registry(&self) -> &ModelRegistry {
        &self.registry
    }

    /// Ends every model's queue and joins its worker. Blocks for the batches in flight.
    pub fn stop(self) {
        self.registry.stop();
    }

    /// Answers a request, within its deadline. Having a [`RequestContext`] proves that authentication was asked.
    ///
    /// # Errors
    /// Whatever a caller can be told; `DeadlineExceeded` when the time is over. Dropping the future drops the work.
    pub async fn embed(
        &self,
        ctx: &RequestContext,
        request: EmbedRequest,
    ) -> Result<EmbedResponse, Error> {
        let over = |_| {
            Error::new(
                ErrorKind::DeadlineExceeded,
                "the request took longer than server.request_timeout",
            )
        };
        tokio::time::timeout_at(ctx.deadline.into(), self.embed_in_time(request))
            .await
            .map_err(over)?
    }

    async fn embed_in_time(&self, request: EmbedRequest) -> Result<EmbedResponse, Error> {
        let model = self.registry.resolve(request.model.as_deref())?;
        let name = request.model.clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| model.name.clone());
        model.check_dimensions(request.dimensions)?;
        inputs::check_count(request.inputs.len(), self.max_inputs)?;
        let dimensions = request.dimensions.unwrap_or(model.info.dimensions);
        let truncate = request.truncate.unwrap_or(model.config.truncate);

        let prepared = prepare(model, request, truncate).await?;
        let mut found = Vec::with_capacity(prepared.len());
        for Prepared { key, .. } in &prepared {
            found.push(self.cache.get(key).await);
        }
        let n_cached = found.iter().flatten().count();
        let mut admission = model.batcher().admit(prepared.len() - n_cached)?;
        let pending = prepared.into_iter().zip(found).enumerate().map(
            |(i, (Prepared { input, key }, hit))| {
                // One leave for each miss: they were counted just now.
                let leave = if hit.is_none() {
                    admission.take_one()
                } else {
                    None
                };
                async move {
                    match (hit, leave) {
                        (Some(hit), _) => Ok(hit),
                        (None, Some(leave)) => self
                            .miss(model, key, input, truncate, leave)
                            .await
                            .map_err(|error| inputs::at(error, i)),
                        (None, None) => {
                            Err(Error::new(ErrorKind::Internal, "an input was not admitted"))
                        }
                    }
                }
            },
        );
        let computed = try_join_all(pending).await?;

        let (normalize, heavy) = (
            model.normalize,
            computed.len() * dimensions >= FINISH_ELSEWHERE,
        );
        let finish = move || {
            computed
                .iter()
                .map(|one| vector::finish(one, dimensions, normalize))
                .collect()
        };
        Ok(EmbedResponse {
            model: name,
            embeddings: offload::run_if(heavy, finish).await?,
            n_cached,
        })
    }

    /// Computes one input, or waits for another request that does.
    async fn miss(
        &self,
        model: &Arc<Model>,
        key: CacheKey,
        input: Input,
        truncate: bool,
        leave: Admission,
    ) -> Result<Arc<CachedEmbedding>, Error> {
        self.cache
            .get_or_compute(key, compute(model, input, truncate, leave))
            .await
    }
}

async fn prepare(
    model: &Arc<Model>,
    request: EmbedRequest,
    truncate: bool,
) -> Result<Vec<Prepared>, Error> {
    let bytes: usize = request.inputs.iter().map(Input::bytes).sum();
    let model = Arc::clone(model);
    let work = move || inputs::prepare(&model, request.inputs, request.token_ids, truncate);
    offload::run_if(bytes >= PREPARE_ELSEWHERE, work).await?
}

/// Tokenizes and runs one input. Holds the leave until the backend has answered.
async fn compute(
    model: &Arc<Model>,
    input: Input,
    truncate: bool,
    leave: Admission,
) -> Result<CachedEmbedding, Error> {
    let tokens = model.tokenize(&input).await?;
    if tokens.n_tokens_full > tokens.ids.len() && !truncate {
        let message = format!(
            "input has {} tokens, model \"{}\" takes at most {}: shorten it, or allow truncation",
            tokens.n_tokens_full, model.name, model.info.max_sequence_tokens
        );
        return Err(Error::invalid("input", message).with_code("context_length_exceeded"));
    }
    let n_tokens = tokens.ids.len();
    let vector = model
        .batcher()
        .embed(tokens.ids, Outputs::DENSE, leave)
        .await?;
    Ok(CachedEmbedding {
        vector: vector.into(),
        n_tokens,
        n_tokens_full: tokens.n_tokens_full,
    })
}
