//! `POST /v1/embeddings` as `OpenAI` speaks it.

mod input;
mod parse;
mod render;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{
    State, body,
    context::Context,
    error::{OpenAiError, add_headers},
    trace::Work,
};
use crate::{
    embed::Embedder,
    error::Error,
    offload,
    request::{Dense, EmbedRequest, EmbedResponse, Input, VectorText},
};

/// Bodies of at least so many bytes are parsed off the threads that serve connections: about 1 ms of work.
const PARSE_ELSEWHERE: usize = 256 << 10;
/// Answers with at least this many numbers are rendered off the threads that serve connections: about 5 ms of work.
const RENDER_ELSEWHERE: usize = 200_000;
/// Bytes that a number takes while it is answered: kept, copied, and written as text or as base64.
const BYTES_PER_NUMBER: usize = 4 + 4 + 13;
const BYTES_PER_BASE64_NUMBER: usize = 4 + 4 + 6;
/// The header that says which inputs were cut lists so many at most.
const MAX_TRUNCATED: usize = 32;

pub(super) async fn embeddings(
    gateway: State,
    Context(ctx): Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, OpenAiError> {
    let embedder = gateway.embedder()?;
    let body = body::read(
        &headers,
        body,
        &gateway.config,
        &gateway.body_memory,
        ctx.deadline,
    )
    .await?;
    let max_inputs = gateway.config.max_inputs;
    let bytes = body.bytes;
    let body_is_large = bytes.len() >= PARSE_ELSEWHERE;
    let has_preprocessors = gateway.plugins.has_preprocessors();
    let parse = move || {
        let (mut request, encoding) = parse::request(&bytes, max_inputs)?;
        if has_preprocessors {
            request.extra = parse::extra(&bytes);
        }
        Ok::<_, Error>((request, encoding))
    };
    let (request, encoding) = offload::run_if(body_is_large, parse).await??;
    let before = Input::total_bytes(&request.inputs);
    let request = embedder.preprocess(&ctx, &gateway.plugins, request).await?;
    // What plugins add counts as if the client had sent it.
    let grown = Input::total_bytes(&request.get().inputs).saturating_sub(before);
    let _grown = gateway.body_memory.take(grown)?;
    let bytes = answer_bytes(embedder, request.get(), encoding)?;
    let memory = gateway.body_memory.take(bytes)?;
    let mut answer = embedder.embed(&ctx, request).await?;
    let added = std::mem::take(&mut answer.headers);
    drop(body.memory);
    let work = Work {
        model: answer.model.clone(),
        n_inputs: answer.embeddings.len(),
        n_tokens: answer.n_tokens(),
        n_cached: answer.n_cached,
    };
    let truncated = truncated(&answer);
    let numbers: usize = answer.embeddings.iter().map(numbers).sum();
    let json = offload::run_if(numbers >= RENDER_ELSEWHERE, move || {
        render::response(&answer, encoding)
    })
    .await?;
    let body = body::holding(json, memory);
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(value) = truncated {
        response.headers_mut().insert("x-truncated", value);
    }
    add_headers(response.headers_mut(), &added);
    response.extensions_mut().insert(work);
    Ok(response)
}

/// Numbers that are still to be written.
fn numbers(embedding: &crate::request::Embedding) -> usize {
    match &embedding.dense {
        Some(Dense::Numbers(vector)) => vector.len(),
        Some(Dense::Text(_)) | None => 0,
    }
}

/// What the answer takes, before any work is done for it.
fn answer_bytes(
    embedder: &Embedder,
    request: &EmbedRequest,
    encoding: VectorText,
) -> Result<usize, Error> {
    let model = embedder.registry().resolve(request.model.as_deref())?;
    let own = model.info.dimensions;
    let dimensions = request.dimensions.unwrap_or(own).min(own);
    let per_number = match encoding {
        VectorText::Numbers => BYTES_PER_NUMBER,
        VectorText::Base64 => BYTES_PER_BASE64_NUMBER,
    };
    Ok(request.inputs.len() * dimensions * per_number)
}

/// Which inputs were cut, as `index:from>to` in tokens, separated by commas; `...` where there are more.
fn truncated(answer: &EmbedResponse) -> Option<HeaderValue> {
    let cut = answer
        .embeddings
        .iter()
        .enumerate()
        .filter(|(_, e)| e.n_tokens_full > e.n_tokens);
    let mut all: Vec<String> = cut
        .map(|(i, e)| format!("{i}:{}>{}", e.n_tokens_full, e.n_tokens))
        .take(MAX_TRUNCATED + 1)
        .collect();
    if all.is_empty() {
        return None;
    }
    if let Some(one_too_many) = all.get_mut(MAX_TRUNCATED) {
        *one_too_many = "...".into();
    }
    HeaderValue::from_str(&all.join(",")).ok()
}
