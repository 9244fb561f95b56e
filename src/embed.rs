//! The pipeline: one request in, one answer out, in one straight function.

use std::sync::Arc;

use embedgate_core::Outputs;
use futures_util::future::try_join_all;

use crate::{
    batch::Admission,
    cache::{CacheKey, CachedEmbedding, EmbeddingCache},
    error::{Error, ErrorKind},
    model::{Model, ModelRegistry},
    request::{EmbedRequest, EmbedResponse, Embedding, Input, RequestContext, TokenIds},
};

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
        match tokio::time::timeout_at(ctx.deadline.into(), self.embed_in_time(request)).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                "the request took longer than server.request_timeout",
            )),
        }
    }

    async fn embed_in_time(&self, request: EmbedRequest) -> Result<EmbedResponse, Error> {
        let model = self.registry.resolve(request.model.as_deref())?;
        let name = request
            .model
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| model.name.clone());
        let truncate = request.truncate.unwrap_or(model.config.truncate);
        model.check_dimensions(request.dimensions)?;
        let dimensions = request.dimensions.unwrap_or(model.info.dimensions);
        let inputs = self.readable_inputs(model, request)?;

        let keys: Vec<CacheKey> = inputs
            .iter()
            .map(|input| CacheKey::dense(model, input, truncate))
            .collect();
        let mut found = Vec::with_capacity(keys.len());
        for key in &keys {
            found.push(self.cache.get(key).await);
        }
        let n_cached = found.iter().flatten().count();
        let mut admission = model.batcher().admit(keys.len() - n_cached)?;
        let pending =
            found
                .into_iter()
                .zip(keys)
                .zip(inputs)
                .enumerate()
                .map(|(i, ((hit, key), input))| {
                    let leave = if hit.is_none() {
                        admission.take_one()
                    } else {
                        None
                    };
                    async move {
                        match (hit, leave) {
                            (Some(hit), _) => Ok(hit),
                            (None, Some(leave)) => {
                                let computed = compute(model, input, truncate, leave);
                                self.cache
                                    .get_or_compute(key, computed)
                                    .await
                                    .map_err(|error| at_input(error, i))
                            }
                            (None, None) => {
                                Err(Error::new(ErrorKind::Internal, "an input was not admitted"))
                            }
                        }
                    }
                });
        let computed = try_join_all(pending).await?;
        let embeddings = computed
            .iter()
            .map(|cached| finish(cached, dimensions, model.normalize))
            .collect();
        Ok(EmbedResponse {
            model: name,
            embeddings,
            n_cached,
        })
    }

    /// Checks the inputs by arithmetic alone, and decodes token ids that stand for text.
    fn readable_inputs(&self, model: &Model, request: EmbedRequest) -> Result<Vec<Input>, Error> {
        let n = request.inputs.len();
        if n == 0 {
            return Err(Error::invalid("input", "input must hold at least one text"));
        }
        if n > self.max_inputs {
            let message = format!(
                "input must hold at most {} entries, got {n}: split the request",
                self.max_inputs
            );
            return Err(Error::invalid("input", message));
        }
        let policy = model.config.token_ids.unwrap_or(request.token_ids);
        let readable = |(i, input)| match input {
            Input::Text(text) => Ok(Input::Text(text)),
            Input::Tokens(ids) => {
                readable_tokens(model, policy, ids).map_err(|error| at_input(error, i))
            }
        };
        request
            .inputs
            .into_iter()
            .enumerate()
            .map(readable)
            .collect()
    }
}

fn readable_tokens(model: &Model, policy: TokenIds, ids: Vec<u32>) -> Result<Input, Error> {
    if ids.is_empty() {
        return Err(Error::invalid(
            "input",
            "a list of token ids must not be empty",
        ));
    }
    match policy {
        TokenIds::Reject => Err(Error::invalid(
            "input",
            format!(
                "model \"{}\" takes no token ids: send strings; LangChain: check_embedding_ctx_length=False",
                model.name
            ),
        )),
        TokenIds::Native => match ids
            .iter()
            .find(|id| **id as usize >= model.info.vocabulary_size)
        {
            None => Ok(Input::Tokens(ids)),
            Some(id) => {
                let n = model.info.vocabulary_size;
                Err(Error::invalid(
                    "input",
                    format!("token id {id} is outside of the model's vocabulary of {n} ids"),
                ))
            }
        },
        TokenIds::Cl100k => {
            let decoded = tiktoken_rs::cl100k_base_singleton().decode_bytes(&ids);
            // A text that was split into chunks of tokens may be cut within a character.
            let text = decoded.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            text.map(Input::Text).map_err(|_| {
                let known = |id: &&u32| {
                    tiktoken_rs::cl100k_base_singleton()
                        .decode_bytes(&[**id])
                        .is_ok()
                };
                let unknown = ids
                    .iter()
                    .find(|id| !known(id))
                    .copied()
                    .unwrap_or_default();
                Error::invalid(
                    "input",
                    format!(
                        "token id {unknown} is not in cl100k_base, which this model's token_ids are"
                    ),
                )
            })
        }
    }
}

/// Tokenizes and runs one input. Holds the admission until the backend has answered.
async fn compute(
    model: &Arc<Model>,
    input: Input,
    truncate: bool,
    admission: Admission,
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
        .embed(tokens.ids, Outputs::DENSE, admission)
        .await?;
    Ok(CachedEmbedding {
        vector: vector.into(),
        n_tokens,
        n_tokens_full: tokens.n_tokens_full,
    })
}

/// Says which input an error is about.
fn at_input(error: Error, i: usize) -> Error {
    match error.kind {
        ErrorKind::InvalidRequest => Error {
            message: format!("input[{i}]: {}", error.message),
            ..error
        },
        ErrorKind::Internal => Error {
            message: format!("{} at input[{i}]", error.message),
            ..error
        },
        _ => error,
    }
}

/// Cuts and normalizes a vector, and copies it out of the cache.
fn finish(cached: &CachedEmbedding, dimensions: usize, normalize: bool) -> Embedding {
    let mut vector = cached.vector[..dimensions.min(cached.vector.len())].to_vec();
    if normalize || vector.len() < cached.vector.len() {
        normalize_to_one(&mut vector);
    }
    Embedding {
        vector,
        n_tokens: cached.n_tokens,
        n_tokens_full: cached.n_tokens_full,
    }
}

/// Gives a vector length 1; the zero vector stays as it is.
///
/// Source: PyTorch 2.15, `torch.nn.functional.normalize`: the length is at least 1e-12. Summed in f64.
#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
fn normalize_to_one(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|x| f64::from(*x) * f64::from(*x))
        .sum::<f64>()
        .sqrt()
        .max(1e-12);
    for x in vector {
        *x = (f64::from(*x) / length) as f32;
    }
}
