//! `POST /v2/embed` and `POST /v1/embed` as Cohere speaks them.
//!
//! Source: Cohere's API reference, versions 2 and 1, "Embed".

use axum::response::Response;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, Input, Side, TokenIds};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    dense::{DenseForm, FORMS},
    error::Failed,
    exchange::Exchange,
    input::Inputs,
    json::{self, count, inputs, kind, object, one_of, perhaps, typed, words, wrong},
    members::Members,
};

/// The members that mean something.
pub(super) const KNOWN: [&str; 9] = [
    "model",
    "texts",
    "inputs",
    "images",
    "input_type",
    "embedding_types",
    "output_dimension",
    "truncate",
    "max_tokens",
];

const MEMBERS: Members = Members {
    known: &KNOWN,
    foreign: &[],
};

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    texts: Option<&'a RawValue>,
    /// Texts and images together, which is not supported here.
    inputs: Option<&'a RawValue>,
    images: Option<&'a RawValue>,
    input_type: Option<&'a RawValue>,
    embedding_types: Option<&'a RawValue>,
    output_dimension: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
}

/// The forms that a request asks for, under their names.
type Forms = Vec<(&'static str, DenseForm)>;

pub(super) async fn embed(mut exchange: Exchange) -> Result<Response, Failed> {
    let (request, forms) = exchange.parse(MEMBERS, parse).await?;
    let answer = exchange.embed(request).await?;
    let id = exchange.ctx.id;
    let forms = forms.unwrap_or_else(|| vec![FORMS[0]]);
    let render = move |answer: &EmbedResponse| render(answer, &id, &forms);
    Ok(answer.write(render).await?)
}

/// The first version: the answer repeats the texts, and without types it is a list of vectors.
pub(super) async fn embed_v1(mut exchange: Exchange) -> Result<Response, Failed> {
    let (request, forms) = exchange.parse(MEMBERS, parse).await?;
    let bytes = Input::total_bytes(&request.inputs);
    // They stand in the answer, and beside it until it is written.
    let memory = exchange.account.take(2 * bytes)?;
    let texts = request
        .inputs
        .iter()
        .map(|input| input.as_text().to_owned());
    let texts: Vec<String> = texts.collect();
    let mut answer = exchange.embed(request).await?;
    answer.keep(memory);
    let id = exchange.ctx.id;
    let render = move |answer: &EmbedResponse| render_v1(answer, &id, forms.as_deref(), &texts);
    Ok(answer.write(render).await?)
}

fn parse(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, Option<Forms>), Error> {
    let fields: Fields<'_> = object(bytes, "model, input_type and texts")?;
    for (name, raw) in [("images", fields.images), ("inputs", fields.inputs)] {
        if raw.is_some_and(|raw| !matches!(raw.get(), "null" | "[]")) {
            let message = format!("{name} is not supported: send texts");
            return Err(Error::invalid(name, message));
        }
    }
    let ends = [
        ("NONE", None),
        ("START", Some(Side::Left)),
        ("END", Some(Side::Right)),
    ];
    let end = one_of("truncate", fields.truncate, &ends)?;
    let request = EmbedRequest {
        model: typed("model", fields.model, "a string")?,
        kind: kind(perhaps(fields.input_type).as_deref()),
        token_ids: TokenIds::Reject,
        dimensions: count("output_dimension", fields.output_dimension)?,
        truncate: end.map(|side| side.is_some()),
        side: end.flatten(),
        max_tokens: count("max_tokens", fields.max_tokens)?,
        ..EmbedRequest::new(inputs(Inputs::alike("texts", max_inputs), fields.texts)?)
    };
    Ok((request, forms(fields.embedding_types)?))
}

/// None where none is named.
fn forms(raw: Option<&RawValue>) -> Result<Option<Forms>, Error> {
    let expected = "a list of \"float\", \"base64\", \"binary\" and \"ubinary\"";
    let names = words("embedding_types", raw, expected)?.unwrap_or_default();
    let is_unknown = |name: &&String| FORMS.iter().all(|(known, _)| known != name);
    if let Some(unknown) = names.iter().find(is_unknown) {
        return Err(wrong("embedding_types", expected, &format!("{unknown:?}")));
    }
    if names.is_empty() {
        return Ok(None);
    }
    let is_asked = |(known, _): &(&str, DenseForm)| names.iter().any(|name| name == known);
    Ok(Some(FORMS.into_iter().filter(is_asked).collect()))
}

fn render(answer: &EmbedResponse, id: &str, forms: &[(&str, DenseForm)]) -> Vec<u8> {
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
    forms: Option<&[(&str, DenseForm)]>,
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

fn write_by_type(out: &mut Vec<u8>, answer: &EmbedResponse, forms: &[(&str, DenseForm)]) {
    out.push(b'{');
    for (i, (name, form)) in forms.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write(out, name);
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
