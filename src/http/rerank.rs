//! `POST /v1/rerank` as Jina speaks it, `POST /v2/rerank` as Cohere does, and `POST /rerank`, where the body tells whether
//! it is Jina's or text-embeddings-inference's.

mod parse;

use std::{cmp::Reverse, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};

use self::parse::{Asked, Shape};
use super::{
    State,
    body::{self, WholeBody},
    context::Context,
    dialect::Dialect,
    error::{Failed, add_headers},
    exchange::Exchange,
    trace::Work,
};
use crate::{embed::Ranking, error::Error, offload, request::Input};

/// What a line of an answer takes, without its document.
const LINE_BYTES: usize = 256;
/// Answers of at least so many bytes are written off the threads that serve connections: about 1 ms.
const RENDER_ELSEWHERE: usize = 1 << 20;

/// `POST /v1/rerank`.
pub(super) async fn jina(
    gateway: State,
    Context(ctx): Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failed> {
    let exchange = Exchange::begin(&gateway, &ctx)?;
    let body = exchange.read(&headers, body).await?;
    Ok(answer(exchange, body, Shape::Jina).await?)
}

/// `POST /v2/rerank`.
pub(super) async fn cohere(
    gateway: State,
    Context(ctx): Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failed> {
    let exchange = Exchange::begin(&gateway, &ctx)?;
    let body = exchange.read(&headers, body).await?;
    Ok(answer(exchange, body, Shape::Cohere).await?)
}

/// `POST /rerank`.
pub(super) async fn either(
    gateway: State,
    Context(ctx): Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failed> {
    let exchange = Exchange::begin(&gateway, &ctx)?;
    let body = exchange.read(&headers, body).await?;
    let shape = parse::shape(&body.bytes);
    let answered = answer(exchange, body, shape).await;
    answered.map_err(|error| match shape {
        Shape::Tei => Failed::from(error).in_words_of(Dialect::Tei),
        Shape::Jina | Shape::Cohere => error.into(),
    })
}

async fn answer(exchange: Exchange<'_>, body: WholeBody, shape: Shape) -> Result<Response, Error> {
    let Exchange {
        gateway,
        ctx,
        embedder,
    } = exchange;
    let parser = move |bytes: &[u8], max| parse::request(bytes, shape, max);
    let (mut request, asked) = exchange.parse(&body.bytes, &parse::KNOWN, parser).await?;
    let documents: Vec<String> = match asked.with_documents {
        true => request.inputs[1..].iter().map(text).collect(),
        false => Vec::new(),
    };
    let n_inputs = request.inputs.len();
    let bytes = n_inputs * LINE_BYTES + 2 * documents.iter().map(String::len).sum::<usize>();
    let memory = gateway.body_memory.take(bytes)?;
    if request.model.is_none() {
        request.model = embedder.registry().reranker().map(str::to_owned);
    }
    let request = embedder.preprocess(ctx, &gateway.plugins, request).await?;
    let take = |bytes| gateway.body_memory.take(bytes);
    let mut ranking = embedder.rerank(ctx, request, take).await?;
    drop(body.memory);
    let added = std::mem::take(&mut ranking.headers);
    let work = Work {
        model: ranking.model.clone(),
        n_inputs,
        n_tokens: ranking.n_tokens,
        n_cached: ranking.n_cached,
    };
    let id = Arc::clone(&ctx.id);
    let render = move || render(shape, &asked, &ranking, &documents, &id);
    let json = offload::run_if(bytes >= RENDER_ELSEWHERE, render).await?;
    let body = body::holding(json, memory);
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    add_headers(response.headers_mut(), &added);
    response.extensions_mut().insert(work);
    Ok(response)
}

fn text(input: &Input) -> String {
    match input {
        Input::Text(text) => text.clone(),
        Input::Tokens(_) => String::new(),
    }
}

/// One line of an answer.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    relevance_score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    text: &'a str,
}

fn render(
    shape: Shape,
    asked: &Asked,
    ranking: &Ranking,
    documents: &[String],
    id: &str,
) -> Vec<u8> {
    // Best first; of equal ones, the first.
    let mut order: Vec<usize> = (0..ranking.scores.len()).collect();
    order.sort_by_key(|i| Reverse(Ordered(ranking.scores[*i])));
    order.truncate(asked.top_n.unwrap_or(usize::MAX));
    let lines: Vec<Line<'_>> = order
        .into_iter()
        .map(|index| {
            let score = match asked.raw_scores {
                true => ranking.scores[index],
                false => ranking.probability(index),
            };
            let text = documents.get(index).map(String::as_str);
            let is_tei = shape == Shape::Tei;
            Line {
                index,
                relevance_score: (!is_tei).then_some(score),
                score: is_tei.then_some(score),
                document: text.filter(|_| !is_tei).map(|text| Document { text }),
                text: text.filter(|_| is_tei),
            }
        })
        .collect();
    let n = ranking.n_tokens;
    let rest = match shape {
        Shape::Tei => return serde_json::to_vec(&lines).expect(ALWAYS),
        Shape::Jina => json!({
            "id": id,
            "model": ranking.model,
            "usage": {"prompt_tokens": n, "total_tokens": n},
            "meta": {"tokens": {"input_tokens": n, "output_tokens": 0}},
        }),
        Shape::Cohere => json!({
            "id": id,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": 1},
                "tokens": {"input_tokens": n, "output_tokens": 0},
            },
        }),
    };
    let answer = Answer {
        rest,
        results: lines,
    };
    serde_json::to_vec(&answer).expect(ALWAYS)
}

const ALWAYS: &str = "strings and finite numbers into memory always succeed";

/// The whole of an answer in an envelope.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    rest: Value,
    results: Vec<Line<'a>>,
}

/// Scores are finite, so that they have an order.
#[derive(PartialEq)]
struct Ordered(f32);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
