//! The pipeline: one request in, one answer out, in one straight function.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use embedgate_core::PerHead;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, ErrorKind, Input, RequestContext};

use super::{
    charge::Charge,
    inputs::{self, Prepared},
    missing::missing,
    postprocess::Postprocess,
    preprocess::Preprocessed,
    task::{EmbedTask, truncation},
};
use crate::{
    blocking,
    cache::{CacheKey, CachedValue, EmbeddingCache},
    model::Model,
};

/// Requests with at least so many bytes of input are prepared off the threads that serve connections: about 1 ms.
pub(super) const PREPARE_ELSEWHERE: usize = 512 << 10;

/// Answers requests whose model is found: from the cache, and from the model's queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(super) cache: EmbeddingCache,
    pub(super) max_inputs: usize,
}

/// The results of one input that are found.
pub(super) type Values = PerHead<Arc<CachedValue>>;

impl Pipeline {
    /// Answers a request, within its deadline. Having a [`RequestContext`] proves that authentication was asked.
    ///
    /// # Errors
    /// Whatever a caller can be told; `DeadlineExceeded` when the time is over. Dropping the future drops the work.
    pub(crate) async fn embed(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
    ) -> Result<EmbedResponse, Error> {
        in_time(ctx, pin!(self.embed_in_time(ctx, request))).await
    }

    async fn embed_in_time(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
    ) -> Result<EmbedResponse, Error> {
        let Preprocessed {
            request,
            headers,
            target,
            ..
        } = request;
        let model = target.model()?;
        model.check_outputs(request.outputs)?;
        model.check_dimensions(request.dimensions)?;
        inputs::check_count("input", request.inputs.len(), self.max_inputs)?;
        let prompt = model
            .prompts
            .choose(request.prompt_name.as_deref(), request.kind)?;
        let own = model.info.dimensions;
        let is_cut = request.dimensions.is_some_and(|n| n < own);
        let postprocess = Postprocess {
            dimensions: request.dimensions.unwrap_or(own),
            // Cut vectors are made length 1 again, unless the request says that it wants none of that.
            normalize: request.normalize.unwrap_or(model.normalize || is_cut),
            text: request.text,
        };
        let task = EmbedTask {
            model: Arc::clone(model),
            prompt: Arc::clone(prompt),
            truncation: truncation(model, &request),
            lane: inputs::lane(ctx.lane, model.config.lane, &request.inputs),
            timings: Arc::clone(&ctx.timings),
        };

        let prepared = self.prepare(ctx, &task, request).await?;
        let inputs = prepared.iter().map(|input| &input.input);
        let charge = Charge::estimated(ctx, || {
            inputs.map(|input| model.estimate_tokens(input)).sum()
        })?;
        let looking_up = ctx.timings.span("cache");
        let mut found = self.look_up(model, &prepared).await;
        drop(looking_up);
        let is_kept: Vec<bool> = prepared
            .iter()
            .zip(&found)
            .map(|(input, found)| missing(input, found).is_empty())
            .collect();
        let keys: Vec<PerHead<CacheKey>> = prepared.iter().map(|input| input.keys).collect();
        if !is_kept.iter().all(|kept| *kept) {
            // Apart, so that requests whose inputs are all kept need not carry its size.
            let computed = Box::pin(self.compute_missing(&task, ctx, prepared, &mut found));
            if let Err(error) = computed.await {
                charge.fail(&error);
                return Err(error);
            }
        }
        let embeddings = postprocess.all(&self.cache, keys, found, &is_kept).await?;
        let answer = EmbedResponse {
            model: target.name().to_owned(),
            embeddings,
            n_cached: is_kept.iter().filter(|kept| **kept).count(),
            headers,
        };
        charge.settle(answer.n_tokens());
        model.metrics.tokens.inc_by(answer.n_tokens() as u64);
        Ok(answer)
    }

    async fn prepare(
        &self,
        ctx: &RequestContext,
        task: &EmbedTask,
        request: EmbedRequest,
    ) -> Result<Vec<Prepared>, Error> {
        let bytes = Input::total_bytes(&request.inputs);
        let (cache, task) = (self.cache.clone(), task.clone());
        let principal = ctx.principal.clone();
        let work = move || inputs::prepare(&cache, &principal, &task, request);
        blocking::run_if_large(bytes >= PREPARE_ELSEWHERE, work).await?
    }

    /// Looks up the kept results of each input, in memory or in the file.
    async fn look_up(&self, model: &Model, prepared: &[Prepared]) -> Vec<Values> {
        let mut all = Vec::with_capacity(prepared.len());
        let mut not_in_memory = Vec::new();
        for (i, input) in prepared.iter().enumerate() {
            let mut found = Values::default();
            for (head, key) in input.keys.iter() {
                match self.cache.get(key).await {
                    Some(value) => found.set(head, value),
                    None => not_in_memory.push((i, head, *key)),
                }
            }
            if missing(input, &found).is_empty() {
                model.metrics.hits.inc();
            }
            all.push(found);
        }
        if not_in_memory.is_empty() || !self.cache.has_file() {
            return all;
        }
        let keys = not_in_memory.iter().map(|(_, _, key)| *key).collect();
        let from_file = Box::pin(self.cache.get_from_file(keys)).await;
        for ((i, head, _), value) in not_in_memory.into_iter().zip(from_file) {
            if let Some(value) = value {
                all[i].set(head, value);
                if missing(&prepared[i], &all[i]).is_empty() {
                    model.metrics.from_file.inc();
                }
            }
        }
        all
    }
}

/// Ends what takes longer than the request has. The work is pinned where it is made: it is large, and each move is a copy.
pub(super) async fn in_time<T>(
    ctx: &RequestContext,
    work: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    let over = |_| {
        Error::new(
            ErrorKind::DeadlineExceeded,
            "the request took longer than server.request_timeout, or its own x-request-timeout-ms",
        )
    };
    tokio::time::timeout_at(ctx.deadline.into(), work)
        .await
        .map_err(over)?
}
