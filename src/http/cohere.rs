//! `POST /v2/embed` and `POST /v1/embed` as Cohere speaks them.
//!
//! Source: Cohere's API reference, versions 2 and 1, "Embed".

use std::sync::Arc;

use axum::response::Response;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, Input, Side, TokenIds};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{
    admitted_request::AdmittedRequest,
    dense::DenseForm,
    error::Failed,
    input::{self, Inputs},
    json::{self, input_kind},
    member::{Count, Lenient, Raw, Words},
    object::{Members, Source},
    openapi::lists::Texts,
};

/// The body of a request for embeddings.
#[derive(Deserialize, ToSchema)]
pub(super) struct CohereEmbedRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = CohereTexts)]
    texts: Option<Raw<'a>>,
    /// search_query, search_document or another word, which says nothing.
    #[schema(value_type = Option<Value>)]
    input_type: Option<Lenient>,
    /// float where nothing is said.
    #[schema(value_type = Option<Vec<DenseForm>>)]
    embedding_types: Option<Words<DenseForm>>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    output_dimension: Option<Count>,
    truncate: Option<Truncate>,
    /// Not supported: empty at most.
    #[schema(value_type = Option<Vec<String>>, max_items = 0)]
    images: Option<Raw<'a>>,
    /// Not supported: empty at most.
    #[schema(value_type = Option<Vec<String>>, max_items = 0)]
    inputs: Option<Raw<'a>>,
    /// Cuts inputs to so many tokens; special tokens stay.
    #[schema(value_type = Option<u64>, minimum = 0)]
    max_tokens: Option<Count>,
}

impl<'a> Members<'a> for CohereEmbedRequest<'a> {
    const NEEDED: &'static str = "model, input_type and texts";
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
enum CohereTexts {
    One(String),
    Several(#[schema(inline)] Texts),
}

/// The side on which over-long inputs are cut; NONE: they are refused.
#[derive(Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Truncate {
    None,
    Start,
    End,
}

impl Truncate {
    fn side(self) -> Option<Side> {
        match self {
            Self::None => None,
            Self::Start => Some(Side::Left),
            Self::End => Some(Side::Right),
        }
    }
}

/// The forms that a request asks for, each once.
type Forms = Vec<DenseForm>;

pub(super) async fn embed(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let (request, forms) = admitted.parse(parse).await?;
    let answer = admitted.embed(request).await?;
    let id = Arc::clone(&answer.ctx.id);
    let forms = forms.unwrap_or_else(|| vec![DenseForm::Float]);
    let render = move |answer: &EmbedResponse| render(answer, &id, &forms);
    Ok(answer.write(render).await?)
}

/// The first version: the answer repeats the texts, and without types it is a list of vectors.
pub(super) async fn embed_v1(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let (request, forms) = admitted.parse(parse).await?;
    let found = admitted.find(request)?;
    let bytes = Input::total_bytes(&found.request.inputs);
    // They stand in the answer, and beside it until it is written.
    let memory = found.ctx().memory.take(2 * bytes)?;
    let texts = found
        .request
        .inputs
        .iter()
        .map(|input| input.as_text().to_owned());
    let texts: Vec<String> = texts.collect();
    let mut answer = found.embed().await?;
    answer.keep(memory);
    let id = Arc::clone(&answer.ctx.id);
    let render = move |answer: &EmbedResponse| render_v1(answer, &id, forms.as_deref(), &texts);
    Ok(answer.write(render).await?)
}

fn parse(source: &mut Source<'_>) -> Result<(EmbedRequest, Option<Forms>), Error> {
    let body: CohereEmbedRequest<'_> = source.members()?;
    for (name, given) in [("images", body.images), ("inputs", body.inputs)] {
        if given.is_some_and(|Raw(json)| json != "[]") {
            let message = format!("{name} is not supported: send texts");
            return Err(Error::invalid(name, message));
        }
    }
    let inputs = Inputs::alike("texts", source.max_inputs);
    let request = EmbedRequest {
        model: body.model,
        kind: input_kind(Lenient::get(body.input_type).as_deref()),
        token_ids: TokenIds::Reject,
        dimensions: Count::get(body.output_dimension),
        truncate: body.truncate.map(|truncate| truncate != Truncate::None),
        side: body.truncate.and_then(Truncate::side),
        max_tokens: Count::get(body.max_tokens),
        ..EmbedRequest::new(input::read(inputs, body.texts)?)
    };
    Ok((request, forms(body.embedding_types)))
}

/// None where none is named.
fn forms(named: Option<Words<DenseForm>>) -> Option<Forms> {
    let Words(named) = named?;
    if named.is_empty() {
        return None;
    }
    let all = DenseForm::ALL.into_iter();
    Some(all.filter(|form| named.contains(form)).collect())
}

fn render(answer: &EmbedResponse, id: &str, forms: &[DenseForm]) -> Vec<u8> {
    let mut out = br#"{"id":"#.to_vec();
    json::write(&mut out, id);
    out.extend_from_slice(br#","embeddings":"#);
    write_by_type(&mut out, answer, forms);
    write_meta(&mut out, answer, "2");
    out.extend_from_slice(br#","response_type":"embeddings_by_type"}"#);
    out
}

fn render_v1(
    answer: &EmbedResponse,
    id: &str,
    forms: Option<&[DenseForm]>,
    texts: &[String],
) -> Vec<u8> {
    let mut out = br#"{"id":"#.to_vec();
    json::write(&mut out, id);
    out.extend_from_slice(br#","texts":"#);
    json::write(&mut out, texts);
    out.extend_from_slice(br#","embeddings":"#);
    let kind = if let Some(forms) = forms {
        write_by_type(&mut out, answer, forms);
        "embeddings_by_type"
    } else {
        DenseForm::Float.write_all(&mut out, answer);
        "embeddings_floats"
    };
    write_meta(&mut out, answer, "1");
    out.extend_from_slice(br#","response_type":"#);
    json::write(&mut out, kind);
    out.push(b'}');
    out
}

fn write_by_type(out: &mut Vec<u8>, answer: &EmbedResponse, forms: &[DenseForm]) {
    out.push(b'{');
    for (i, form) in forms.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write(out, form.name());
        out.push(b':');
        form.write_all(out, answer);
    }
    out.push(b'}');
}

fn write_meta(out: &mut Vec<u8>, answer: &EmbedResponse, version: &str) {
    let n = answer.n_tokens();
    let meta = json!({"api_version": {"version": version}, "billed_units": {"input_tokens": n}});
    out.extend_from_slice(br#","meta":"#);
    json::write(out, &meta);
}
