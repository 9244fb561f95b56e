//! `POST /v1/embeddings` as `OpenAI` speaks it, with what else models give, and what Jina's clients add.

mod outputs;
pub(super) mod parse;
mod render;

use axum::{
    extract::{Path, rejection::PathRejection},
    response::Response,
};
use embedgate_request::Error;

pub(super) use self::parse::Encoding;
use super::{admitted_request::AdmittedRequest, error::Failed};

pub(super) async fn embeddings(admitted: AdmittedRequest) -> Result<Response, Failed> {
    answer(admitted, None).await
}

/// The path of Azure's clients: the deployment is the model.
pub(super) async fn of_deployment(
    model: Result<Path<String>, PathRejection>,
    admitted: AdmittedRequest,
) -> Result<Response, Failed> {
    let Path(model) =
        model.map_err(|_| Error::invalid("model", "the deployment's name is not valid UTF-8"))?;
    answer(admitted, Some(model)).await
}

async fn answer(admitted: AdmittedRequest, model: Option<String>) -> Result<Response, Failed> {
    let (mut request, form) = admitted.parse(parse::request).await?;
    request.model = model.or(request.model);
    let answer = admitted.embed(request).await?;
    let tokenizer = form.names_tokens().then(|| answer.model.tokenizer.clone());
    let render = move |answer: &_| render::response(answer, &form, tokenizer.as_ref());
    Ok(answer.write(render).await?)
}
