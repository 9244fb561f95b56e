//! `POST /v1/rerank` as Jina speaks it, `POST /v2/rerank` as Cohere does, and `POST /rerank`, where the body tells whether
//! it is Jina's or text-embeddings-inference's; `POST /score` as vLLM speaks it, and `POST /v1/ranking` as NVIDIA does.

pub(super) mod body;
mod parse;

use std::{sync::Arc, time::Instant};

use axum::response::Response;
use embedgate_request::{Error, Input};
use serde::Serialize;
use serde_json::{Value, json};

use self::parse::{Options, Shape};
use super::{
    answer::{Rendered, shown_name},
    dialect::Dialect,
    error::Failed,
    exchange::Exchange,
    json,
    object::Source,
    tei::{Told, characters},
    trace::Work,
};
use crate::{embed::Ranking, offload};

/// Bytes that one line of an answer takes, without its document.
const LINE_BYTES: usize = 256;
/// Answers of at least so many bytes are written off the threads that serve connections: about 1 ms.
const RENDER_ELSEWHERE: usize = 1 << 20;

/// `POST /v1/rerank`.
pub(super) async fn jina(exchange: Exchange) -> Result<Response, Failed> {
    Ok(answer(exchange, Shape::Jina).await?)
}

/// `POST /v2/rerank`.
pub(super) async fn cohere(exchange: Exchange) -> Result<Response, Failed> {
    Ok(answer(exchange, Shape::Cohere).await?)
}

/// `POST /score`, as vLLM: the scores of one text with others, in their order.
pub(super) async fn score(exchange: Exchange) -> Result<Response, Failed> {
    Ok(answer(exchange, Shape::Score).await?)
}

/// `POST /v1/ranking`, as NVIDIA.
pub(super) async fn nim(exchange: Exchange) -> Result<Response, Failed> {
    Ok(answer(exchange, Shape::Nim).await?)
}

/// `POST /rerank`.
pub(super) async fn either(exchange: Exchange) -> Result<Response, Failed> {
    let shape = exchange.read(|source| parse::shape(source)).await?;
    answer(exchange, shape).await.map_err(|error| match shape {
        Shape::Tei => Failed::from(error).in_words_of(Dialect::Tei),
        _ => error.into(),
    })
}

async fn answer(exchange: Exchange, shape: Shape) -> Result<Response, Error> {
    let started = Instant::now();
    let parser = move |source: &mut Source<'_>| parse::request(source, shape);
    let (mut request, options) = exchange.parse(parser).await?;
    let registry = exchange.embedder().registry();
    request.model = registry.name_for_ranking(request.model);
    let found = exchange.find(request)?;
    let inputs = &found.request.inputs;
    let n_inputs = inputs.len();
    let n_characters = inputs.iter().map(characters).sum();
    // Documents that go into the answer are kept, and written.
    let shown = match options.with_documents {
        true => 2 * Input::total_bytes(inputs),
        false => 0,
    };
    let bytes = n_inputs * LINE_BYTES + shown;
    let (memory, deadline) = (&found.ctx().memory, found.ctx().deadline);
    let memory = memory.take_for_answer(bytes, deadline).await?;
    let documents: Vec<String> = match options.with_documents {
        true => inputs[1..]
            .iter()
            .map(|input| input.as_text().to_owned())
            .collect(),
        false => Vec::new(),
    };
    let ready = found.ready().await?;
    let (ctx, model) = (ready.ctx, Arc::clone(ready.request.target().model()?));
    let ranking = ready.pipeline.rerank(&ctx, ready.request, options.length);
    let mut ranking = ranking.await?;
    drop(ready.body);
    let added = std::mem::take(&mut ranking.headers);
    let cuts = std::mem::take(&mut ranking.cuts);
    let work = Work {
        model: shown_name(&ranking.model),
        n_inputs,
        n_tokens: ranking.n_tokens,
        n_cached: ranking.n_cached,
        n_truncated: cuts.len(),
    };
    let told = (shape == Shape::Tei).then(|| Told {
        device: model.info.device.clone(),
        n_characters,
        n_tokens: ranking.n_tokens,
        started,
    });
    let id = Arc::clone(&ctx.id);
    let render = move || render(&options, &ranking, &documents, &id);
    let json = offload::run_if(bytes >= RENDER_ELSEWHERE, render).await?;
    let rendered = Rendered {
        json,
        memory,
        added,
        cuts,
    };
    let mut response = rendered.respond(work);
    if let Some(told) = told {
        told.put(&ctx.spent, response.headers_mut());
    }
    Ok(response)
}

/// One line of an answer.
#[derive(Serialize)]
struct Line<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relevance_score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Document<'a> {
    Plain(&'a str),
    Object { text: &'a str },
}

fn render(options: &Options, ranking: &Ranking, documents: &[String], id: &str) -> Vec<u8> {
    // Best first; of equal ones, the first.
    let mut order: Vec<usize> = (0..ranking.scores.len()).collect();
    if options.shape != Shape::Score {
        order.sort_by(|a, b| ranking.scores[*b].total_cmp(&ranking.scores[*a]));
    }
    order.truncate(options.top_n.unwrap_or(usize::MAX));
    let document = |text| match options.shape {
        Shape::Voyage => Document::Plain(text),
        _ => Document::Object { text },
    };
    let lines: Vec<Line<'_>> = order
        .into_iter()
        .map(|index| {
            let score = match options.raw_scores || options.shape == Shape::Nim {
                true => ranking.scores[index],
                false => ranking.probability(index),
            };
            let text = documents.get(index).map(String::as_str);
            let is_tei = options.shape == Shape::Tei;
            let named = |is_it: bool| is_it.then_some(score);
            Line {
                index,
                object: (options.shape == Shape::Score).then_some("score"),
                relevance_score: named(matches!(
                    options.shape,
                    Shape::Jina | Shape::Voyage | Shape::Cohere
                )),
                score: named(matches!(options.shape, Shape::Tei | Shape::Score)),
                logit: named(options.shape == Shape::Nim),
                document: text.filter(|_| !is_tei).map(document),
                text: text.filter(|_| is_tei),
            }
        })
        .collect();
    let (n, mut out) = (ranking.n_tokens, Vec::new());
    let rest = match options.shape {
        Shape::Tei => {
            json::write(&mut out, &lines);
            return out;
        }
        Shape::Jina => json!({
            "id": id,
            "model": ranking.model,
            "usage": {"prompt_tokens": n, "total_tokens": n},
            "meta": {"tokens": {"input_tokens": n, "output_tokens": 0}},
        }),
        Shape::Voyage => {
            let answer = ListAnswer {
                id: None,
                object: "list",
                data: lines,
                model: &ranking.model,
                usage: json!({"total_tokens": n}),
            };
            json::write(&mut out, &answer);
            return out;
        }
        Shape::Score => {
            let answer = ListAnswer {
                id: Some(id),
                object: "list",
                data: lines,
                model: &ranking.model,
                usage: json!({"prompt_tokens": n, "total_tokens": n}),
            };
            json::write(&mut out, &answer);
            return out;
        }
        Shape::Nim => {
            out.extend_from_slice(br#"{"rankings":"#);
            json::write(&mut out, &lines);
            out.extend_from_slice(br#","usage":"#);
            json::write(&mut out, &json!({"prompt_tokens": n, "total_tokens": n}));
            out.push(b'}');
            return out;
        }
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
    json::write(&mut out, &answer);
    out
}

/// The whole of an answer in an envelope.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    rest: Value,
    results: Vec<Line<'a>>,
}

/// The whole of an answer, as Voyage and vLLM write it.
#[derive(Serialize)]
struct ListAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    object: &'static str,
    data: Vec<Line<'a>>,
    model: &'a str,
    usage: Value,
}
