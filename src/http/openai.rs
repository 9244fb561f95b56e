//! `POST /v1/embeddings` as `OpenAI` speaks it, with what else models give, and what Jina's clients add.

pub(super) mod input;
mod parse;
mod render;

use axum::{body::Body, http::HeaderMap, response::Response};

use super::{State, context::Context, error::Failed, exchange::Exchange};

pub(super) async fn embeddings(
    gateway: State,
    Context(ctx): Context,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failed> {
    let exchange = Exchange::begin(&gateway, &ctx)?;
    let body = exchange.read(&headers, body).await?;
    let parsed = exchange.parse(&body.bytes, &parse::KNOWN, parse::request);
    let (request, form) = parsed.await?;
    let answer = exchange.embed(body, request).await?;
    let tokenizer = if form.names_tokens() {
        let model = exchange
            .embedder
            .registry()
            .resolve(Some(&answer.response.model))?;
        Some(model.tokenizer.clone())
    } else {
        None
    };
    let render = move |answer: &_| render::response(answer, &form, tokenizer.as_ref());
    Ok(answer.write(render).await?)
}
