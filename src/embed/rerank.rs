//! The scores of documents for a query: from a cross-encoder, or from all outputs that one model gives of both.

mod compare;
mod pairs;
mod reservation;
mod vectors;
mod windows;

use std::{pin::pin, sync::Arc};

use embedgate_core::Head;
use embedgate_request::{
    Cut, EmbedRequest, Error, ErrorKind, Input, Lane, RequestContext, Truncation,
};

pub(crate) use self::windows::Length;
use self::{reservation::Reservation, windows::Passages};
use super::{
    inputs,
    pipeline::{Pipeline, in_time},
    preprocess::Preprocessed,
    target::Target,
    task::truncation,
};
use crate::model::Model;

/// Reranking of at most so many bytes is a query where nobody says otherwise: a page of results.
const QUERY_BYTES: usize = 64 << 10;

/// The scores of documents, in their order.
#[derive(Clone, Debug)]
pub(crate) struct Ranking {
    /// The model's name as the client sent it, or the default model's.
    pub model: String,
    /// A score a document: the larger, the better it answers.
    pub scores: Vec<f32>,
    /// True when the scores are logits; else they are mostly between 0 and 1, but nothing bounds them.
    pub are_logits: bool,
    /// Tokens of the query and of all documents.
    pub n_tokens: usize,
    /// Number of texts, of the query and the documents, that were in the cache.
    pub n_cached: usize,
    /// The query, if it was cut, and the documents that were.
    pub cuts: Vec<Cut>,
    /// Headers that plugins add to the answer.
    pub headers: Vec<(String, String)>,
}

impl Ranking {
    /// The score of a document, between 0 and 1.
    #[must_use]
    pub(crate) fn probability(&self, i: usize) -> f32 {
        let score = self.scores[i];
        if self.are_logits {
            1.0 / (1.0 + (-score).exp())
        } else {
            score.clamp(0.0, 1.0)
        }
    }
}

impl Pipeline {
    /// Scores documents, the inputs but the first, for a query, the first.
    ///
    /// # Errors
    /// As [`Pipeline::embed`]; and `InvalidRequest` where the model's weights ask for nothing that it gives, or where
    /// documents make more windows than the model queues.
    pub(crate) async fn rerank(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
        length: Length,
    ) -> Result<Ranking, Error> {
        in_time(ctx, pin!(self.rerank_in_time(ctx, request, length))).await
    }

    async fn rerank_in_time(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
        length: Length,
    ) -> Result<Ranking, Error> {
        let Preprocessed {
            mut request,
            headers,
            target,
            for_queries,
        } = request;
        let model = target.model()?;
        let lane = lane(ctx, model, &request.inputs);
        let mut inputs = std::mem::take(&mut request.inputs);
        let documents = inputs.split_off(1);
        inputs::check_count("documents", documents.len(), self.max_inputs)?;
        let missing = || Error::new(ErrorKind::Internal, "a query to rerank for is missing");
        let query = inputs.pop().ok_or_else(missing)?;
        let task = RerankTask {
            ctx: RequestContext {
                lane: Some(lane),
                ..ctx.clone()
            },
            lane,
            target: &target,
            for_queries: for_queries.as_ref().unwrap_or(&target),
            model,
            truncation: truncation(model, &request),
            request,
        };
        let (passages, scored) = match model.info.outputs.has(Head::Score) {
            true => by_pairs(&task, length, query, documents).await?,
            false => self.by_vectors(&task, length, query, documents).await?,
        };
        let scored = scored.map_err(|error| error.of_document(|i| passages.document(i)))?;
        Ok(Ranking {
            model: target.name().to_owned(),
            scores: passages.best(&scored.scores),
            are_logits: model.info.outputs.has(Head::Score),
            n_tokens: scored.n_tokens,
            n_cached: scored.n_cached,
            cuts: passages.cuts(scored.cuts),
            headers,
        })
    }

    /// Scores by the vectors of query and documents.
    async fn by_vectors(
        &self,
        task: &RerankTask<'_>,
        length: Length,
        query: Input,
        documents: Vec<Input>,
    ) -> Result<(Passages, Result<Scored, Error>), Error> {
        let outputs = compare::outputs(task.model)?;
        let mut passages = {
            // Documents that need no cutting are counted when they are embedded, and those in the cache are not.
            let cuts = length.cuts(task.model);
            let _reservation = cuts
                .then(|| Reservation::take(task, &documents))
                .transpose()?;
            let room = windows::room(task, length).await?;
            Passages::of(task, length, room, documents).await?
        };
        let inputs = passages.take_inputs();
        let scored = self.compare(task, outputs, query, inputs).await;
        Ok((passages, scored))
    }
}

/// Scores by a cross-encoder.
async fn by_pairs(
    task: &RerankTask<'_>,
    length: Length,
    query: Input,
    documents: Vec<Input>,
) -> Result<(Passages, Result<Scored, Error>), Error> {
    let (query, mut passages) = {
        let _reservation = Reservation::take(task, &documents)?;
        let query = Arc::new(pairs::query(task, query).await?);
        let room = task.model.tokenizer.room_beside(&query);
        let passages = Passages::of(task, length, room, documents).await?;
        (query, passages)
    };
    let inputs = passages.take_inputs();
    let scored = pairs::score(task, &query, inputs).await;
    Ok((passages, scored))
}

/// The reranking of one request.
struct RerankTask<'a> {
    ctx: RequestContext,
    lane: Lane,
    target: &'a Target,
    /// The model that serves the query.
    for_queries: &'a Target,
    model: &'a Model,
    truncation: Truncation,
    /// Without its inputs.
    request: EmbedRequest,
}

/// The scores of passages, and what they took.
#[derive(Default)]
struct Scored {
    scores: Vec<f32>,
    n_tokens: usize,
    n_cached: usize,
    /// The cuts of the query, and of passages.
    cuts: Vec<Cut>,
}

/// Few documents wait for a search, many for an import.
fn lane(ctx: &RequestContext, model: &Model, inputs: &[Input]) -> Lane {
    let by_size = match Input::total_bytes(inputs) {
        ..=QUERY_BYTES => Lane::Query,
        _ => Lane::Bulk,
    };
    ctx.lane.or(model.config.lane).unwrap_or(by_size)
}

/// The text of an input.
fn text(input: Input) -> Result<String, Error> {
    match input {
        Input::Text(text) => Ok(text),
        Input::Tokens(_) => Err(Error::invalid(
            "documents",
            "documents and queries are texts",
        )),
    }
}
