//! `POST /v1/rerank` as Jina speaks it, `POST /v2/rerank` as Cohere does, and `POST /rerank`, where the body tells whether
//! it is Jina's or text-embeddings-inference's; `POST /score` as vLLM speaks it, and `POST /v1/ranking` as NVIDIA does.

pub(super) mod body;
mod parse;

use std::{sync::Arc, time::Instant};

use axum::response::Response;
use embedgate_request::{Error, Input};
use serde::Serialize;
use serde_json::{Value, json};

use self::parse::{RerankApi, RerankOptions};
use super::{
    admitted_request::AdmittedRequest,
    answer::{RenderedAnswer, shown_name},
    dialect::Dialect,
    error::Failed,
    json,
    object::Source,
    tei::{ComputeHeaders, characters},
    trace::RequestStats,
};
use crate::{blocking, embed::Ranking};

/// Bytes that one line of an answer takes, without its document.
const LINE_BYTES: usize = 256;
/// Answers of at least so many bytes are written off the threads that serve connections: about 1 ms.
const RENDER_ELSEWHERE: usize = 1 << 20;

/// `POST /v1/rerank`.
pub(super) async fn jina(admitted: AdmittedRequest) -> Result<Response, Failed> {
    Ok(answer(admitted, RerankApi::Jina).await?)
}

/// `POST /v2/rerank`.
pub(super) async fn cohere(admitted: AdmittedRequest) -> Result<Response, Failed> {
    Ok(answer(admitted, RerankApi::Cohere).await?)
}

/// `POST /score`, as vLLM: the scores of one text with others, in their order.
pub(super) async fn score(admitted: AdmittedRequest) -> Result<Response, Failed> {
    Ok(answer(admitted, RerankApi::Score).await?)
}

/// `POST /v1/ranking`, as NVIDIA.
pub(super) async fn nim(admitted: AdmittedRequest) -> Result<Response, Failed> {
    Ok(answer(admitted, RerankApi::Nim).await?)
}

/// `POST /rerank`.
pub(super) async fn either(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let api = admitted.read(|source| parse::api(source)).await?;
    answer(admitted, api).await.map_err(|error| match api {
        RerankApi::Tei => Failed::from(error).in_words_of(Dialect::Tei),
        _ => error.into(),
    })
}

async fn answer(admitted: AdmittedRequest, api: RerankApi) -> Result<Response, Error> {
    let started = Instant::now();
    let parser = move |source: &mut Source<'_>| parse::request(source, api);
    let (mut request, options) = admitted.parse(parser).await?;
    let registry = admitted.embedder().registry();
    request.model = registry.name_for_ranking(request.model);
    let found = admitted.find(request)?;
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
    let ready = found.ready_to_rank().await?;
    let (ctx, model) = (ready.ctx, Arc::clone(ready.request.target().model()?));
    let ranking = ready.pipeline.rerank(&ctx, ready.request, options.length);
    let mut ranking = ranking.await?;
    drop(ready.body);
    let added = std::mem::take(&mut ranking.headers);
    let cuts = std::mem::take(&mut ranking.cuts);
    let stats = RequestStats {
        model: shown_name(&ranking.model),
        n_inputs,
        n_tokens: ranking.n_tokens,
        n_cached: ranking.n_cached,
        n_truncated: cuts.len(),
    };
    let compute_headers = (api == RerankApi::Tei).then(|| ComputeHeaders {
        device: model.info.device.clone(),
        n_characters,
        n_tokens: ranking.n_tokens,
        started,
    });
    let id = Arc::clone(&ctx.id);
    let render = move || render(&options, &ranking, &documents, &id);
    let rendering = ctx.timings.span("render");
    let json = blocking::run_if_large(bytes >= RENDER_ELSEWHERE, render).await?;
    drop(rendering);
    let rendered = RenderedAnswer {
        json,
        memory,
        added,
        cuts,
    };
    let mut response = rendered.respond(stats);
    if let Some(compute_headers) = compute_headers {
        compute_headers.put(&ctx.timings, response.headers_mut());
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

fn render(options: &RerankOptions, ranking: &Ranking, documents: &[String], id: &str) -> Vec<u8> {
    // Best first; of equal ones, the first.
    let mut order: Vec<usize> = (0..ranking.scores.len()).collect();
    if options.api != RerankApi::Score {
        order.sort_by(|a, b| ranking.scores[*b].total_cmp(&ranking.scores[*a]));
    }
    order.truncate(options.top_n.unwrap_or(usize::MAX));
    let document = |text| match options.api {
        RerankApi::Voyage => Document::Plain(text),
        _ => Document::Object { text },
    };
    let lines: Vec<Line<'_>> = order
        .into_iter()
        .map(|index| {
            let score = match options.raw_scores || options.api == RerankApi::Nim {
                true => ranking.scores[index],
                false => ranking.probability(index),
            };
            let text = documents.get(index).map(String::as_str);
            let is_tei = options.api == RerankApi::Tei;
            let named = |is_it: bool| is_it.then_some(score);
            Line {
                index,
                object: (options.api == RerankApi::Score).then_some("score"),
                relevance_score: named(matches!(
                    options.api,
                    RerankApi::Jina | RerankApi::Voyage | RerankApi::Cohere
                )),
                score: named(matches!(options.api, RerankApi::Tei | RerankApi::Score)),
                logit: named(options.api == RerankApi::Nim),
                document: text.filter(|_| !is_tei).map(document),
                text: text.filter(|_| is_tei),
            }
        })
        .collect();
    let (n, mut out) = (ranking.n_tokens, Vec::new());
    let rest = match options.api {
        RerankApi::Tei => {
            json::write(&mut out, &lines);
            return out;
        }
        RerankApi::Jina => json!({
            "id": id,
            "model": ranking.model,
            "usage": {"prompt_tokens": n, "total_tokens": n},
            "meta": {"tokens": {"input_tokens": n, "output_tokens": 0}},
        }),
        RerankApi::Voyage => {
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
        RerankApi::Score => {
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
        RerankApi::Nim => {
            out.extend_from_slice(br#"{"rankings":"#);
            json::write(&mut out, &lines);
            out.extend_from_slice(br#","usage":"#);
            json::write(&mut out, &json!({"prompt_tokens": n, "total_tokens": n}));
            out.push(b'}');
            return out;
        }
        RerankApi::Cohere => json!({
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
