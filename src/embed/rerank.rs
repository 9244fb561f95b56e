//! How well documents answer a query: by a cross-encoder, or by all that one model gives of both.

mod vectors;
mod windows;

use std::{sync::Arc, time::Instant};

use embedgate_core::Outputs;
use futures_util::future::try_join_all;
use tokio::sync::OwnedSemaphorePermit;

pub use self::windows::Length;
use self::windows::Passages;
use super::{Charge, Embedder, Preprocessed, check_length, in_time, inputs, truncation};
use crate::{
    batch::{Urgent, Work},
    error::{Error, ErrorKind},
    model::Model,
    offload,
    request::{
        Cut, EmbedRequest, EmbedResponse, Input, InputKind, Lane, RequestContext, Truncation,
    },
    spent::Step,
};

/// Documents are compared in groups whose results take about so many bytes: token vectors of many would fill the memory.
const GROUP_BYTES: usize = 32 << 20;
/// Reranking of at most so many bytes is a query where nobody says otherwise: a page of results.
const QUERY_BYTES: usize = 64 << 10;
/// Of a longer query, a cross-encoder reads the first bytes.
const MOST_QUERY_BYTES: usize = 16 << 10;
/// What documents take while they are cut: their parts, which overlap, and where tokens begin and end.
const BYTES_PER_CUT_BYTE: usize = 2 + 8;
/// Bytes of a number while it is compared: kept, and copied.
const BYTES_PER_NUMBER: usize = 4 + 4;

/// The scores of documents, in their order.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// The model's name as the client sent it, or the default model's.
    pub model: String,
    /// A score a document: the larger, the better it answers.
    pub scores: Vec<f32>,
    /// Whether they are logits; else they are mostly between 0 and 1, but nothing bounds them.
    pub are_logits: bool,
    /// Tokens of the query and of all documents.
    pub n_tokens: usize,
    /// How many of the query and the documents were in the cache.
    pub n_cached: usize,
    /// The documents that were cut.
    pub cuts: Vec<Cut>,
    /// Headers that plugins add to the answer.
    pub headers: Vec<(String, String)>,
}

impl Ranking {
    /// The score of a document, between 0 and 1.
    #[must_use]
    pub fn probability(&self, i: usize) -> f32 {
        let score = self.scores[i];
        if self.are_logits {
            1.0 / (1.0 + (-score).exp())
        } else {
            score.clamp(0.0, 1.0)
        }
    }
}

impl Embedder {
    /// Scores documents, the inputs but the first, for a query, the first. `take` gives leave to hold so many bytes.
    ///
    /// # Errors
    /// As [`Embedder::embed`]; and `InvalidRequest` where the model's weights ask for nothing that it gives, or where
    /// documents make more windows than the model queues.
    pub async fn rerank(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
        length: Length,
        take: impl Fn(usize) -> Result<OwnedSemaphorePermit, Error>,
    ) -> Result<Ranking, Error> {
        in_time(ctx, self.rerank_in_time(ctx, request, length, take)).await
    }

    async fn rerank_in_time(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
        length: Length,
        take: impl Fn(usize) -> Result<OwnedSemaphorePermit, Error>,
    ) -> Result<Ranking, Error> {
        let (mut request, headers) = request.into_parts();
        let model = self.model(&ctx.principal, request.model.as_deref())?;
        let lane = lane(ctx, model, &request.inputs);
        let mut inputs = std::mem::take(&mut request.inputs);
        let documents = inputs.split_off(1);
        inputs::check_count(documents.len(), self.max_inputs)?;
        let missing = || Error::new(ErrorKind::Internal, "a query to rerank for is missing");
        let query = inputs.pop().ok_or_else(missing)?;
        let _memory = match length.cuts(model) {
            true => Some(take(Input::total_bytes(&documents) * BYTES_PER_CUT_BYTE)?),
            false => None,
        };
        let mut passages = Passages::of(model, &request, length, &query, documents, lane).await?;
        let task = Task {
            ctx: RequestContext {
                lane: Some(lane),
                ..ctx.clone()
            },
            lane,
            model,
            request,
        };
        let inputs = std::mem::take(&mut passages.inputs);
        let scored = match model.info.outputs.score {
            true => cross_encode(&task, query, inputs, take).await,
            false => self.compare(&task, query, inputs, take).await,
        };
        let scored = scored.map_err(|error| error.of_document(|i| passages.document(i)))?;
        let named = task.request.model.filter(|name| !name.is_empty());
        let mut cuts = scored.cuts;
        for cut in &mut cuts {
            cut.index = passages.document(cut.index);
        }
        cuts.dedup_by_key(|cut| cut.index);
        Ok(Ranking {
            model: named.unwrap_or_else(|| model.name.clone()),
            scores: passages.best(&scored.scores),
            are_logits: model.info.outputs.score,
            n_tokens: scored.n_tokens,
            n_cached: scored.n_cached,
            cuts,
            headers,
        })
    }

    /// Compares the vectors of passages with the query's. An error names a passage.
    async fn compare(
        &self,
        task: &Task<'_>,
        query: Input,
        passages: Vec<Input>,
        take: impl Fn(usize) -> Result<OwnedSemaphorePermit, Error>,
    ) -> Result<Scored, Error> {
        let model = task.model;
        let weights = model.config.rerank;
        let outputs = outputs(model)?;
        let _memory = take(group_bytes(model, outputs, &query))?;
        let asked = |inputs: Vec<Input>, kind: InputKind| {
            let request = EmbedRequest {
                inputs,
                outputs,
                kind,
                normalize: Some(true),
                text: None,
                dimensions: None,
                ..task.request.clone()
            };
            self.embed(&task.ctx, Preprocessed::unchanged(request))
        };
        let answer = asked(vec![query], InputKind::Query).await;
        let answer = answer.map_err(|error| Error {
            param: error.param.map(|_| "query"),
            entry: None,
            ..error
        })?;
        let mut scored = Scored {
            n_tokens: answer.n_tokens(),
            n_cached: answer.n_cached,
            ..Scored::default()
        };
        let query: Arc<EmbedResponse> = Arc::new(answer);
        for (group, bytes) in groups(model, outputs, passages) {
            let memory = take(bytes)?;
            let first = scored.scores.len();
            let answer = asked(group, InputKind::Document).await;
            let answer = answer.map_err(|error| error.of_document(|i| first + i))?;
            scored.n_tokens += answer.n_tokens();
            scored.n_cached += answer.n_cached;
            let cuts = answer.cuts().map(|cut| Cut {
                index: first + cut.index,
                ..cut
            });
            scored.cuts.extend(cuts);
            let query = Arc::clone(&query);
            let compare = move || {
                let one = |document| vectors::score(weights, &query.embeddings[0], document);
                answer.embeddings.iter().map(one).collect::<Vec<f32>>()
            };
            let scores = offload::run_if(outputs.multi_vector, compare).await?;
            scored.scores.extend(scores);
            drop(memory);
        }
        Ok(scored)
    }
}

/// What is done for one request.
struct Task<'a> {
    ctx: RequestContext,
    lane: Lane,
    model: &'a Model,
    /// Without its inputs.
    request: EmbedRequest,
}

/// The scores of passages, and what they took.
#[derive(Default)]
struct Scored {
    scores: Vec<f32>,
    n_tokens: usize,
    n_cached: usize,
    cuts: Vec<Cut>,
}

/// Runs each pair of the query and a passage through the model: admitted all or none, in batches with whatever else waits.
/// An error names a passage.
async fn cross_encode(
    task: &Task<'_>,
    query: Input,
    passages: Vec<Input>,
    take: impl Fn(usize) -> Result<OwnedSemaphorePermit, Error>,
) -> Result<Scored, Error> {
    let (model, lane) = (task.model, task.lane);
    let inputs = passages.iter().chain([&query]);
    let tokens: usize = inputs.map(|input| model.reserve_tokens(input)).sum();
    // Ids and segments, and the query's beside each passage's.
    let most = model.info.max_sequence_tokens * passages.len();
    let _memory = take((tokens * passages.len()).min(most) * 8)?;
    let truncation = truncation(model, &task.request);
    let (of_query, most) = (
        model.estimate_tokens(&query),
        model.info.max_sequence_tokens,
    );
    let estimate = |passage: &Input| (of_query + model.estimate_tokens(passage)).min(most);
    let estimates: Vec<usize> = passages.iter().map(estimate).collect();
    let admissions = model.batcher().admit(&estimates, lane, task.ctx.deadline)?;
    let charge = Charge::estimated(&task.ctx.principal, || estimates.iter().sum());
    let mut query = windows::text(query)?;
    if truncation != Truncation::Refuse {
        // It is read again for each passage.
        query.truncate(query.floor_char_boundary(MOST_QUERY_BYTES));
    }
    let query = &Arc::new(query);
    let pairs = passages.into_iter().zip(admissions).enumerate();
    let pairs = pairs.map(|(i, (passage, admission))| async move {
        let scored = async {
            let text = Arc::new(windows::text(passage)?);
            let started = Instant::now();
            let tokens = model
                .tokenize_pair(query, text, truncation.side(), lane)
                .await?;
            task.ctx.spent.add(Step::Tokenize, started.elapsed());
            check_length(model, &tokens, truncation)?;
            let (from, to) = (tokens.n_tokens_full, tokens.ids.len());
            let work = Work {
                ids: tokens.ids,
                type_ids: tokens.type_ids,
                outputs: Outputs::SCORE,
                urgent: Urgent::default(),
                admission,
                spent: Arc::clone(&task.ctx.spent),
            };
            let row = model.batcher().embed(work).await?;
            let missing = || Error::new(ErrorKind::Internal, "the model gave no score");
            let cut = Cut { index: i, from, to };
            Ok::<_, Error>((row.score.ok_or_else(missing)?, cut))
        };
        scored.await.map_err(|error| error.of_input(i))
    });
    let (scores, lengths): (Vec<f32>, Vec<Cut>) = try_join_all(pairs).await?.into_iter().unzip();
    let n_tokens = lengths.iter().map(|cut| cut.to).sum();
    charge.settle(n_tokens);
    model.metrics.tokens.inc_by(n_tokens as u64);
    Ok(Scored {
        scores,
        n_tokens,
        n_cached: 0,
        cuts: lengths
            .into_iter()
            .filter(|cut| cut.from > cut.to)
            .collect(),
    })
}

/// What is compared: all that the model gives and that has a weight.
fn outputs(model: &Model) -> Result<Outputs, Error> {
    let (weights, gives) = (model.config.rerank, model.info.outputs);
    let outputs = Outputs {
        dense: gives.dense && weights.dense > 0.0,
        sparse: gives.sparse && weights.sparse > 0.0,
        multi_vector: gives.multi_vector && weights.colbert > 0.0,
        ..Outputs::default()
    };
    if outputs == Outputs::default() {
        let message = format!(
            "model \"{}\" cannot rerank: its rerank weights are of nothing that it gives, which is {gives}",
            model.name
        );
        return Err(Error::invalid("model", message));
    }
    Ok(outputs)
}

/// Few documents wait for a search, many for an import.
fn lane(ctx: &RequestContext, model: &Model, inputs: &[Input]) -> Lane {
    let by_size = match Input::total_bytes(inputs) {
        ..=QUERY_BYTES => Lane::Query,
        _ => Lane::Bulk,
    };
    ctx.lane.or(model.config.lane).unwrap_or(by_size)
}

/// What the results of an input take.
fn group_bytes(model: &Model, outputs: Outputs, input: &Input) -> usize {
    let width = model.info.dimensions * BYTES_PER_NUMBER;
    let per_token = if outputs.multi_vector { width } else { 16 };
    width + model.reserve_tokens(input) * per_token
}

/// Splits documents into groups, with what the results of each take.
fn groups(model: &Model, outputs: Outputs, documents: Vec<Input>) -> Vec<(Vec<Input>, usize)> {
    let mut groups: Vec<(Vec<Input>, usize)> = Vec::new();
    for document in documents {
        let bytes = group_bytes(model, outputs, &document);
        match groups.last_mut() {
            Some((group, sum)) if *sum + bytes <= GROUP_BYTES => {
                group.push(document);
                *sum += bytes;
            }
            _ => groups.push((vec![document], bytes)),
        }
    }
    groups
}
