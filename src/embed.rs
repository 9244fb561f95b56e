//! The pipeline: one request in, one answer out, in one straight function.

mod finish;
mod inputs;
mod preprocess;
mod rerank;

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::Arc,
    time::Instant,
};

use embedgate_core::Outputs;
use embedgate_request::{
    Allowance, EmbedRequest, EmbedResponse, Error, ErrorKind, Input, Lane, MOST_COUNTED, Principal,
    RequestContext, Spent, Step, Truncation,
};
use futures_util::future::try_join_all;

use self::{finish::Finish, inputs::Prepared};
pub(crate) use self::{
    preprocess::Preprocessed,
    rerank::{Length, Ranking},
};
use crate::{
    batch::{Admission, Patience, Urgent, Work},
    cache::{CacheKey, CachedValue, EmbeddingCache, Flight, Head, PerHead, value::Computed},
    model::{DEFAULT, Entry, Model, ModelRegistry, tokenizer::Tokenized},
    offload,
};

/// Requests with at least so many bytes of input are prepared off the threads that serve connections: about 1 ms.
const PREPARE_ELSEWHERE: usize = 512 << 10;

/// The service behind every dialect.
pub(crate) struct Embedder {
    registry: ModelRegistry,
    cache: EmbeddingCache,
    max_inputs: usize,
}

type Values = PerHead<Arc<CachedValue>>;

impl Embedder {
    /// Puts the service together.
    #[must_use]
    pub(crate) fn new(registry: ModelRegistry, cache: EmbeddingCache, max_inputs: usize) -> Self {
        Self {
            registry,
            cache,
            max_inputs,
        }
    }

    /// The models.
    #[must_use]
    pub(crate) fn registry(&self) -> &ModelRegistry {
        &self.registry
    }

    /// The model of a name, or the default one, for somebody who wants to use it.
    ///
    /// # Errors
    /// As [`ModelRegistry::resolve`]; and Forbidden where it is not the caller's.
    pub(crate) fn model(
        &self,
        principal: &Principal,
        name: Option<&str>,
    ) -> Result<&Arc<Model>, Error> {
        let model = self.registry.resolve_for(principal, name)?;
        model.touch();
        Ok(model)
    }

    /// The entry of a name, for somebody who asks about it: a model that is not theirs is as one that is not there.
    ///
    /// # Errors
    /// `ModelNotFound` that lists the names.
    pub(crate) fn shown(&self, principal: &Principal, name: &str) -> Result<&Entry, Error> {
        if name != DEFAULT && !self.registry.is_known(name) {
            return Err(self.registry.not_found(principal, name));
        }
        let hidden = |error: Error| match error.kind {
            ErrorKind::Forbidden => self.registry.not_found(principal, name),
            _ => error,
        };
        let found = self.registry.find_for(principal, Some(name));
        found.map_err(hidden)
    }

    /// Returns the same service with other models.
    #[must_use]
    pub(crate) fn with_registry(&self, registry: ModelRegistry) -> Self {
        Self::new(registry, self.cache.clone(), self.max_inputs)
    }

    /// Returns the same service, which holds in memory at most the model of this name in the configuration.
    #[must_use]
    pub(crate) fn with_only(&self, name: &str) -> Self {
        self.with_registry(self.registry.with_only(name))
    }

    /// The cache.
    #[must_use]
    pub(crate) fn cache(&self) -> &EmbeddingCache {
        &self.cache
    }

    /// Ends every model's queue and joins its workers. Blocks for the batches in flight.
    pub(crate) fn stop(self) {
        self.registry.stop();
    }

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
        let (request, headers) = request.into_parts();
        let model = self.model(&ctx.principal, request.model.as_deref())?;
        let name = request.model.clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| model.name.clone());
        model.check_outputs(request.outputs)?;
        model.check_dimensions(request.dimensions)?;
        inputs::check_count("input", request.inputs.len(), self.max_inputs)?;
        let prompt = model
            .prompts
            .choose(request.prompt_name.as_deref(), request.kind)?;
        let own = model.info.dimensions;
        let is_cut = request.dimensions.is_some_and(|n| n < own);
        let finish = Finish {
            dimensions: request.dimensions.unwrap_or(own),
            // Cut vectors are made length 1 again, unless the request says that it wants none of that.
            normalize: request.normalize.unwrap_or(model.normalize || is_cut),
            text: request.text,
        };
        let task = Task {
            model: Arc::clone(model),
            prompt: Arc::clone(prompt),
            truncation: truncation(model, &request),
            lane: inputs::lane(ctx.lane, model.config.lane, &request.inputs),
            spent: Arc::clone(&ctx.spent),
        };

        let prepared = self.prepare(ctx, &task, request).await?;
        let inputs = prepared.iter().map(|input| &input.input);
        let charge = Charge::estimated(ctx, || {
            inputs.map(|input| model.estimate_tokens(input)).sum()
        })?;
        let mut found = self.look_up(model, &prepared).await;
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
        let embeddings = finish.all(&self.cache, keys, found, &is_kept).await?;
        let answer = EmbedResponse {
            model: name,
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
        task: &Task,
        request: EmbedRequest,
    ) -> Result<Vec<Prepared>, Error> {
        let bytes = Input::total_bytes(&request.inputs);
        let (cache, task) = (self.cache.clone(), task.clone());
        let principal = ctx.principal.clone();
        let work = move || inputs::prepare(&cache, &principal, &task, request);
        offload::run_if(bytes >= PREPARE_ELSEWHERE, work).await?
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

    /// Computes what is missing, or waits for others who do. Admission is for all of it or for none.
    async fn compute_missing(
        &self,
        task: &Task,
        ctx: &RequestContext,
        prepared: Vec<Prepared>,
        found: &mut [Values],
    ) -> Result<(), Error> {
        let metrics = &task.model.metrics;
        // Who waits for what: an input, the heads it needs of the flight, and the flight.
        let mut waits: Vec<(usize, PerHead<CacheKey>, Flight)> = Vec::new();
        let mut new: Vec<(usize, PerHead<CacheKey>, Input)> = Vec::new();
        let mut new_by_key: HashMap<CacheKey, usize> = HashMap::new();
        let mut twins: Vec<(usize, PerHead<CacheKey>, usize)> = Vec::new();
        for (i, input) in prepared.into_iter().enumerate() {
            let mut keys = missing(&input, &found[i]);
            if keys.is_empty() {
                continue;
            }
            for head in Head::ALL {
                if let Some(flight) = keys
                    .get(head)
                    .and_then(|key| self.cache.join(key, task.lane))
                {
                    waits.push((i, keys.take_only(head), flight));
                }
            }
            let Some((_, key)) = keys.iter().next() else {
                metrics.coalesced.inc();
                continue;
            };
            match new_by_key.get(key) {
                Some(twin) => {
                    metrics.coalesced.inc();
                    twins.push((i, keys, *twin));
                }
                None => {
                    new_by_key.insert(*key, new.len());
                    new.push((i, keys, input.input));
                }
            }
        }
        let estimates: Vec<usize> = new
            .iter()
            .map(|(_, _, input)| task.model.estimate_tokens(input))
            .collect();
        let admissions = task
            .model
            .batcher()
            .admit(&estimates, task.lane, Patience::of(ctx))?;
        metrics.misses.inc_by(new.len() as u64);
        let mut flights = Vec::with_capacity(new.len());
        for ((i, keys, input), admission) in new.into_iter().zip(admissions) {
            let flight = self.cache.start(keys, task.lane, |urgent| {
                compute(task.clone(), input, outputs_of(&keys), urgent, admission)
            });
            flights.push(flight.clone());
            waits.push((i, keys, flight));
        }
        for (i, keys, twin) in twins {
            waits.push((i, keys, flights[twin].clone()));
        }
        drop(flights);
        let landing = |(i, keys, flight): (usize, PerHead<CacheKey>, Flight)| async move {
            let values = flight.await.map_err(|error| error.of_input(i))?;
            Ok::<_, Error>((i, keys, values))
        };
        for (i, keys, values) in try_join_all(waits.into_iter().map(landing)).await? {
            for (head, _) in keys.iter() {
                let value = values
                    .get(head)
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "a result was not computed"))?;
                found[i].set(head, Arc::clone(value));
            }
        }
        Ok(())
    }
}

/// Ends what takes longer than the request has. The work is pinned where it is made: it is large, and each move is a copy.
async fn in_time<T>(
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

/// Tokens that a caller under a limit has paid for in advance, by an estimate: whoever leaves early has paid, too.
struct Charge<'a> {
    allowance: Option<&'a Allowance>,
    paid: i64,
}

impl<'a> Charge<'a> {
    /// Charges what a request will use, about.
    ///
    /// # Errors
    /// `Overloaded` where nothing is left; of a request that goes on, all is charged.
    fn estimated(ctx: &'a RequestContext, estimate: impl FnOnce() -> usize) -> Result<Self, Error> {
        let allowance = ctx
            .principal
            .identity()
            .and_then(|identity| identity.allowance.as_deref());
        let mut paid = 0;
        if let Some(allowance) = allowance {
            paid = estimate().try_into().unwrap_or(i64::MAX);
            if ctx.begun.charge() {
                allowance.charge_tokens(paid);
            } else {
                allowance.begin_tokens(paid)?;
            }
        }
        Ok(Self { allowance, paid })
    }

    /// Gives it back to who was turned away; an input that made work and failed is paid.
    fn fail(self, error: &Error) {
        if matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable) {
            self.settle(0);
        }
    }

    /// Makes what was paid what was used.
    fn settle(self, n_tokens: usize) {
        if let Some(allowance) = self.allowance {
            let used = i64::try_from(n_tokens).unwrap_or(i64::MAX);
            allowance.charge_tokens(used - self.paid);
        }
    }
}

fn truncation(model: &Model, request: &EmbedRequest) -> Truncation {
    let (side, most) = (request.side.unwrap_or(model.side()), request.max_tokens);
    let is_cut = request.truncate.unwrap_or(model.config.truncate);
    match is_cut || most.is_some() {
        true => Truncation::Cut { side, most },
        false => Truncation::Refuse,
    }
}

/// The work for each input of a request. It outlives the request while others wait for the same result.
#[derive(Clone)]
struct Task {
    model: Arc<Model>,
    /// Put in front of texts.
    prompt: Arc<str>,
    truncation: Truncation,
    lane: Lane,
    /// The record of the time spent, of the request that asked first.
    spent: Arc<Spent>,
}

/// Tokenizes and runs one input. Holds the leave until the backend has answered.
async fn compute(
    task: Task,
    input: Input,
    outputs: Outputs,
    urgent: Urgent,
    admission: Admission,
) -> Result<Computed, Error> {
    let Task {
        model,
        prompt,
        truncation,
        lane,
        spent,
    } = task;
    let started = Instant::now();
    let tokens = model.tokenize(&prompt, &input, truncation, lane).await?;
    spent.add(Step::Tokenize, started.elapsed());
    drop((input, prompt));
    check_length(&model, &tokens, truncation)?;
    let (n_tokens, n_tokens_full) = (tokens.ids.len(), tokens.n_tokens_full);
    let work = Work {
        ids: tokens.ids,
        type_ids: tokens.type_ids,
        outputs,
        urgent,
        admission,
        spent,
    };
    let row = model.batcher().embed(work).await?;
    let is_whole = row
        .dense
        .as_ref()
        .is_none_or(|vector| vector.len() == model.info.dimensions)
        && row
            .sparse
            .as_ref()
            .is_none_or(|sparse| sparse.indices.len() == sparse.values.len())
        && row
            .multi_vector
            .as_ref()
            .is_none_or(|m| m.width > 0 && m.data.len() == m.width * (n_tokens - 1))
        && row
            .token_vectors
            .as_ref()
            .is_none_or(|m| m.width > 0 && m.data.len() == m.width * n_tokens);
    if !is_whole {
        let message = "the model gave a result of another size than its own";
        return Err(Error::new(ErrorKind::Internal, message));
    }
    Ok(Computed {
        row,
        n_tokens,
        n_tokens_full,
    })
}

/// Refuses an input that had to be cut where that is not wanted.
fn check_length(model: &Model, tokens: &Tokenized, truncation: Truncation) -> Result<(), Error> {
    if tokens.n_tokens_full <= tokens.ids.len() || truncation != Truncation::Refuse {
        return Ok(());
    }
    let most = model.info.max_sequence_tokens;
    // `LiteLLM` knows the error by the words of OpenAI: "maximum context length is".
    let counted = MOST_COUNTED.max(most);
    let n = match tokens.n_tokens_full {
        n if n > counted => format!("more than {counted}"),
        n => n.to_string(),
    };
    let message = format!(
        "input has {n} tokens, model \"{}\" takes at most {most} (its maximum context length is {most} tokens): shorten it, or \
         allow truncation",
        model.name
    );
    Err(Error::invalid("input", message).with_code("context_length_exceeded"))
}

/// The keys of an input for which nothing was found.
fn missing(input: &Prepared, found: &Values) -> PerHead<CacheKey> {
    let mut keys = input.keys;
    for (head, _) in found.iter() {
        keys.take(head);
    }
    keys
}

fn outputs_of(keys: &PerHead<CacheKey>) -> Outputs {
    Outputs {
        dense: keys.get(Head::Dense).is_some(),
        sparse: keys.get(Head::Sparse).is_some(),
        multi_vector: keys.get(Head::MultiVector).is_some(),
        token_vectors: keys.get(Head::TokenVectors).is_some(),
        score: false,
    }
}

#[cfg(test)]
mod tests;
