//! `POST /pooling` of vLLM, for the one task that means the same in all its versions: `embed`. What it gives where no task is said, and for
//! a vector a token, differs by version and model.
//!
//! Source: vLLM 0.18, `vllm/entrypoints/pooling`, "Pooling API".

use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::Response;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, TokenIds};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    dense::DenseForm,
    error::Failed,
    exchange::Exchange,
    input::Inputs,
    json::{self, count, inputs, object, one_of, perhaps, typed},
    members::{Members, OF_EMBEDDINGS},
    openai::truncate_prompt_tokens,
};

/// The members that mean something.
pub(super) const KNOWN: [&str; 9] = [
    "model",
    "input",
    "task",
    "encoding_format",
    "dimensions",
    "truncate_prompt_tokens",
    "normalize",
    "use_activation",
    "user",
];

const MEMBERS: Members = Members {
    known: &KNOWN,
    foreign: OF_EMBEDDINGS,
};

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    task: Option<&'a RawValue>,
    encoding_format: Option<&'a RawValue>,
    dimensions: Option<&'a RawValue>,
    truncate_prompt_tokens: Option<&'a RawValue>,
    normalize: Option<&'a RawValue>,
    /// The newer name of it.
    use_activation: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
}

pub(super) async fn pool(mut exchange: Exchange) -> Result<Response, Failed> {
    let (request, form) = exchange.parse(MEMBERS, parse).await?;
    let answer = exchange.embed(request).await?;
    let render = move |answer: &EmbedResponse| render(answer, form);
    Ok(answer.write(render).await?)
}

fn parse(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, DenseForm), Error> {
    let fields: Fields<'_> = object(bytes, "model, input and task")?;
    let task: Option<String> = typed("task", fields.task, "\"embed\"")?;
    if task.as_deref() != Some("embed") {
        let message = "task must be \"embed\", a vector a text: for a vector a token ask /v1/embeddings for outputs [\"colbert\"], \
                       or /embed_all; for scores ask /score";
        return Err(Error::invalid("task", message));
    }
    let forms = [("float", DenseForm::Float), ("base64", DenseForm::Base64)];
    let form = one_of("encoding_format", fields.encoding_format, &forms)?;
    let form = form.unwrap_or(DenseForm::Float);
    let given = inputs(Inputs::alike("input", max_inputs), fields.input)?;
    let boolean = "true or false";
    let normalize = typed("normalize", fields.normalize, boolean)?;
    let request = EmbedRequest {
        model: typed("model", fields.model, "a string")?,
        text: form.text(),
        dimensions: count("dimensions", fields.dimensions)?,
        normalize: normalize.or(typed("use_activation", fields.use_activation, boolean)?),
        max_tokens: truncate_prompt_tokens(fields.truncate_prompt_tokens)?,
        token_ids: TokenIds::Native,
        user: perhaps(fields.user),
        ..EmbedRequest::new(given)
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
        form.write(out, embedding.dense.as_ref());
        out.push(b'}');
    });
    let n = answer.n_tokens();
    let usage = format!(r#","usage":{{"prompt_tokens":{n},"total_tokens":{n}}}}}"#);
    out.extend_from_slice(usage.as_bytes());
    out
}
