//! How well documents answer a query: by a cross-encoder, or by all that one model gives of both.

use std::sync::Arc;

use embedgate_core::{Matrix, Outputs, SparseVector};
use tokio::sync::OwnedSemaphorePermit;

use futures_util::future::try_join_all;

use super::{Charge, Embedder, Preprocessed, check_length, in_time, inputs, truncation};
use crate::{
    batch::{Urgent, Work},
    config::RerankWeights,
    error::{Error, ErrorKind},
    model::Model,
    offload,
    request::{
        Dense, EmbedRequest, EmbedResponse, Embedding, Input, InputKind, Lane, RequestContext,
        Truncation,
    },
};

/// Documents are compared in groups whose results take about so many bytes: token vectors of many would fill the memory.
const GROUP_BYTES: usize = 32 << 20;
/// Reranking of at most so many bytes is a query where nobody says otherwise: a page of results.
const QUERY_BYTES: usize = 64 << 10;
/// Of a longer query, a cross-encoder reads the first bytes.
const MOST_QUERY_BYTES: usize = 16 << 10;
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
    /// As [`Embedder::embed`]; and `InvalidRequest` where the model's weights ask for nothing that it gives.
    pub async fn rerank(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
        take: impl Fn(usize) -> Result<OwnedSemaphorePermit, Error>,
    ) -> Result<Ranking, Error> {
        in_time(ctx, self.rerank_in_time(ctx, request, take)).await
    }

    async fn rerank_in_time(
        &self,
        ctx: &RequestContext,
        request: Preprocessed,
        take: impl Fn(usize) -> Result<OwnedSemaphorePermit, Error>,
    ) -> Result<Ranking, Error> {
        let (mut request, headers) = request.into_parts();
        let model = self.model(&ctx.principal, request.model.as_deref())?;
        let lane = lane(ctx, model, &request.inputs);
        let ctx = &RequestContext {
            lane: Some(lane),
            ..ctx.clone()
        };
        let mut query = std::mem::take(&mut request.inputs);
        let documents = query.split_off(1);
        inputs::check_count(documents.len(), self.max_inputs)?;
        if model.info.outputs.score {
            let inputs = query.iter().chain(&documents);
            let tokens: usize = inputs.map(|input| model.reserve_tokens(input)).sum();
            // Ids and segments, and the query's beside each document's.
            let most = model.info.max_sequence_tokens * documents.len();
            let _memory = take((tokens * documents.len()).min(most) * 8)?;
            let pairs = cross_encode(ctx, model, &request, query, documents);
            let (scores, n_tokens) = pairs.await?;
            let name = request.model.filter(|name| !name.is_empty());
            return Ok(Ranking {
                model: name.unwrap_or_else(|| model.name.clone()),
                scores,
                are_logits: true,
                n_tokens,
                n_cached: 0,
                headers,
            });
        }
        let weights = model.config.rerank;
        let outputs = outputs(model)?;
        let of_query = group_bytes(model, outputs, &query[0]);
        let _memory = take(of_query)?;
        let asked = |inputs: Vec<Input>, kind: InputKind| {
            let request = EmbedRequest {
                inputs,
                outputs,
                kind,
                normalize: Some(true),
                text: None,
                dimensions: None,
                ..request.clone()
            };
            self.embed(ctx, Preprocessed::unchanged(request))
        };
        let answer = asked(query, InputKind::Query).await?;
        let mut ranking = Ranking {
            model: answer.model.clone(),
            scores: Vec::with_capacity(documents.len()),
            are_logits: false,
            n_tokens: answer.n_tokens(),
            n_cached: answer.n_cached,
            headers,
        };
        let query: Arc<EmbedResponse> = Arc::new(answer);
        for (group, bytes) in groups(model, outputs, documents) {
            let memory = take(bytes)?;
            let first = ranking.scores.len();
            let answer = asked(group, InputKind::Document).await;
            let answer = answer.map_err(|error| error.moved(first))?;
            ranking.n_tokens += answer.n_tokens();
            ranking.n_cached += answer.n_cached;
            let query = Arc::clone(&query);
            let compare = move || {
                let one = |document| score(weights, &query.embeddings[0], document);
                answer.embeddings.iter().map(one).collect::<Vec<f32>>()
            };
            let scores = offload::run_if(outputs.multi_vector, compare).await?;
            ranking.scores.extend(scores);
            drop(memory);
        }
        Ok(ranking)
    }
}

/// Runs each pair of the query and a document through the model: admitted all or none, in batches with whatever else waits.
/// Returns the scores, and the tokens of all pairs.
async fn cross_encode(
    ctx: &RequestContext,
    model: &Model,
    request: &EmbedRequest,
    query: Vec<Input>,
    documents: Vec<Input>,
) -> Result<(Vec<f32>, usize), Error> {
    let lane = ctx.lane.unwrap_or(Lane::Bulk);
    let truncation = truncation(model, request);
    let of_query: usize = query.iter().map(|query| model.estimate_tokens(query)).sum();
    let most = model.info.max_sequence_tokens;
    let estimate = |document: &Input| (of_query + model.estimate_tokens(document)).min(most);
    let estimates: Vec<usize> = documents.iter().map(estimate).collect();
    let admissions = model.batcher().admit(&estimates, lane, ctx.deadline)?;
    let charge = Charge::estimated(&ctx.principal, || estimates.iter().sum());
    let texts = query.into_iter().chain(documents).map(|input| match input {
        Input::Text(text) => Ok(Arc::new(text)),
        Input::Tokens(_) => Err(Error::invalid("documents", "pairs are made of texts")),
    });
    let mut texts: Vec<Arc<String>> = texts.collect::<Result<_, _>>()?;
    if let Some(query) = texts.first_mut()
        && query.len() > MOST_QUERY_BYTES
        && truncation != Truncation::Refuse
    {
        // It is read again for each document.
        let end = query.floor_char_boundary(MOST_QUERY_BYTES);
        *query = Arc::new(query[..end].to_owned());
    }
    let (query, documents) = texts
        .split_first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a query to rerank for is missing"))?;
    let pairs = documents.iter().zip(admissions).enumerate();
    let pairs = pairs.map(|(i, (document, admission))| async move {
        let scored = async {
            let text = Arc::clone(document);
            let tokens = model
                .tokenize_pair(query, text, truncation.side(), lane)
                .await?;
            check_length(model, &tokens, truncation)?;
            let n_tokens = tokens.ids.len();
            let work = Work {
                ids: tokens.ids,
                type_ids: tokens.type_ids,
                outputs: Outputs::SCORE,
                urgent: Urgent::default(),
                admission,
            };
            let row = model.batcher().embed(work).await?;
            let missing = || Error::new(ErrorKind::Internal, "the model gave no score");
            Ok::<_, Error>((row.score.ok_or_else(missing)?, n_tokens))
        };
        scored.await.map_err(|error| inputs::at(error, i).moved(0))
    });
    let scored = try_join_all(pairs).await?;
    let (scores, n_tokens): (Vec<f32>, Vec<usize>) = scored.into_iter().unzip();
    let n_tokens = n_tokens.iter().sum();
    charge.settle(n_tokens);
    model.metrics.tokens.inc_by(n_tokens as u64);
    Ok((scores, n_tokens))
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

/// The weighted mean of the scores by each of the results that both have.
///
/// Source: FlagEmbedding 1.4.2, `inference/embedder/encoder_only/m3.py`, `compute_score`.
#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
fn score(weights: RerankWeights, query: &Embedding, document: &Embedding) -> f32 {
    let (mut sum, mut of) = (0.0, 0.0);
    let mut add = |weight: f64, score: f64| {
        sum += weight * score;
        of += weight;
    };
    if let (Some(Dense::Numbers(a)), Some(Dense::Numbers(b))) = (&query.dense, &document.dense) {
        add(weights.dense, dot(a, b).into());
    }
    if let (Some(a), Some(b)) = (&query.sparse, &document.sparse) {
        add(weights.sparse, lexical(a, b));
    }
    if let (Some(a), Some(b)) = (&query.multi_vector, &document.multi_vector) {
        add(weights.colbert, late_interaction(a, b));
    }
    (sum / of) as f32
}

/// The product of two vectors of one length.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Sums side by side: a single one would wait for each addition.
    let mut sums = [0.0_f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The sum over the tokens that both have of the product of their weights.
fn lexical(a: &SparseVector, b: &SparseVector) -> f64 {
    let mut others = b.indices.iter().zip(&b.values).peekable();
    let mut sum = 0.0;
    for (id, weight) in a.indices.iter().zip(&a.values) {
        while others.next_if(|(other, _)| *other < id).is_some() {}
        if let Some((_, other)) = others.next_if(|(other, _)| *other == id) {
            sum += f64::from(*weight) * f64::from(*other);
        }
    }
    sum
}

/// The mean over the query's tokens of the best product with a token of the document; 0 where one has no token.
fn late_interaction(query: &Matrix, document: &Matrix) -> f64 {
    let best = |i: usize| {
        let rows = (0..document.rows()).map(|j| dot(query.row(i), document.row(j)));
        rows.reduce(f32::max).unwrap_or(0.0)
    };
    let n = query.rows();
    let sum: f64 = (0..n).map(|i| f64::from(best(i))).sum();
    if n == 0 { 0.0 } else { sum / n as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexical_weights_meet_at_equal_tokens_alone() {
        let sparse = |pairs: &[(u32, f32)]| {
            let (indices, values) = pairs.iter().copied().unzip();
            SparseVector { indices, values }
        };
        let a = sparse(&[(1, 0.5), (4, 2.0), (9, 1.0)]);
        assert_eq!(
            lexical(&a, &sparse(&[(0, 9.0), (4, 0.25), (5, 9.0), (9, 3.0)])),
            3.5
        );
        assert_eq!(lexical(&a, &sparse(&[])), 0.0);
        assert_eq!(
            lexical(&sparse(&[(9, 1.0)]), &sparse(&[(1, 1.0), (2, 1.0)])),
            0.0
        );
    }

    #[test]
    fn each_token_of_the_query_counts_with_its_best() {
        let matrix = |rows: &[[f32; 2]]| Matrix {
            data: rows.concat(),
            width: 2,
        };
        let query = matrix(&[[1.0, 0.0], [0.0, 1.0]]);
        let document = matrix(&[[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]]);
        assert!((late_interaction(&query, &document) - 0.9).abs() < 1e-6);
        assert_eq!(late_interaction(&query, &matrix(&[])), 0.0);
    }
}
