//! `POST /pooling` of vLLM, for the one task that means the same in all its versions: `embed`. What it gives where no task is said, and for
//! a vector a token, differs by version and model.
//!
//! Source: vLLM 0.18, `vllm/entrypoints/pooling`, "Pooling API".

use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::Response;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, TokenIds};
use serde::Deserialize;

use super::{
    admitted_request::AdmittedRequest,
    dense::DenseForm,
    error::Failed,
    foreign::{Foreign, OF_EMBEDDINGS},
    input::{self, Inputs},
    json,
    member::{Count, Lenient, MaxTokens, Raw},
    object::{Members, Source},
    openai::Encoding,
};

/// The body of a request.
#[derive(Deserialize)]
struct PoolingRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: Option<Raw<'a>>,
    task: Option<Lenient>,
    encoding_format: Option<Encoding>,
    dimensions: Option<Count>,
    truncate_prompt_tokens: Option<MaxTokens>,
    normalize: Option<bool>,
    /// The newer name of it.
    use_activation: Option<bool>,
    user: Option<Lenient>,
}

impl<'a> Members<'a> for PoolingRequest<'a> {
    const NEEDED: &'static str = "model, input and task";
    const FOREIGN: &'static [Foreign] = OF_EMBEDDINGS;
}

pub(super) async fn pool(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let (request, form) = admitted.parse(parse).await?;
    let answer = admitted.embed(request).await?;
    let render = move |answer: &EmbedResponse| render(answer, form);
    Ok(answer.write(render).await?)
}

fn parse(source: &mut Source<'_>) -> Result<(EmbedRequest, DenseForm), Error> {
    let body: PoolingRequest<'_> = source.members()?;
    if Lenient::get(body.task).as_deref() != Some("embed") {
        let message = "task must be \"embed\", a vector a text: for a vector a token ask /v1/embeddings for outputs [\"colbert\"], \
                       or /embed_all; for scores ask /score";
        return Err(Error::invalid("task", message));
    }
    let form = body
        .encoding_format
        .map_or(DenseForm::Float, DenseForm::from);
    let inputs = Inputs::alike("input", source.max_inputs);
    let request = EmbedRequest {
        model: body.model,
        text: form.text(),
        dimensions: Count::get(body.dimensions),
        normalize: body.normalize.or(body.use_activation),
        max_tokens: MaxTokens::get(body.truncate_prompt_tokens),
        token_ids: TokenIds::Native,
        user: Lenient::get(body.user),
        ..EmbedRequest::new(input::read(inputs, body.input)?)
    };
    Ok((request, form))
}

fn render(answer: &EmbedResponse, form: DenseForm) -> Vec<u8> {
    let mut out = br#"{"id":"#.to_vec();
    json::write(&mut out, &format!("pool-{}", uuid::Uuid::now_v7()));
    out.extend_from_slice(br#","object":"list","created":"#);
    // A clock before 1970 is 0.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    json::write(&mut out, &since.unwrap_or_default().as_secs());
    out.extend_from_slice(br#","model":"#);
    json::write(&mut out, &answer.model);
    out.extend_from_slice(br#","data":"#);
    let all = answer.embeddings.iter().enumerate();
    json::list(&mut out, all, |out, (i, embedding)| {
        out.extend_from_slice(br#"{"object":"pooling","index":"#);
        json::write(out, &i);
        out.extend_from_slice(br#","data":"#);
        form.write(out, embedding.dense());
        out.push(b'}');
    });
    let n = answer.n_tokens();
    let usage = format!(r#","usage":{{"prompt_tokens":{n},"total_tokens":{n}}}}}"#);
    out.extend_from_slice(usage.as_bytes());
    out
}
