//! `POST /v1/embeddings` as `OpenAI` speaks it, with what else models give, and what Jina's clients add.

pub(super) mod parse;
mod render;

use axum::response::Response;

use super::{error::Failed, exchange::Exchange};

pub(super) async fn embeddings(mut exchange: Exchange) -> Result<Response, Failed> {
    let (request, form) = exchange.parse(parse::MEMBERS, parse::request).await?;
    let answer = exchange.embed(request).await?;
    let tokenizer = if form.names_tokens() {
        let registry = exchange.embedder().registry();
        let model = registry.resolve(Some(&answer.response.model))?;
        Some(model.tokenizer.clone())
    } else {
        None
    };
    let render = move |answer: &_| render::response(answer, &form, tokenizer.as_ref());
    Ok(answer.write(render).await?)
}
