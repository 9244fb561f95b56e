//! `POST /v2/embed` as Cohere speaks it.
//!
//! Source: Cohere's API reference, version 2, "Embed".

use axum::response::Response;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, Side, TokenIds};
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

/// Those that a request asks for, under their names.
type Forms = Vec<(&'static str, DenseForm)>;

pub(super) async fn embed(mut exchange: Exchange) -> Result<Response, Failed> {
    let (request, forms) = exchange.parse(MEMBERS, parse).await?;
    let answer = exchange.embed(request).await?;
    let id = exchange.ctx.id;
    let render = move |answer: &EmbedResponse| render(answer, &id, &forms);
    Ok(answer.write(render).await?)
}

fn parse(bytes: &[u8], max_inputs: usize) -> Result<(EmbedRequest, Forms), Error> {
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

fn forms(raw: Option<&RawValue>) -> Result<Forms, Error> {
    let expected = "a list of \"float\", \"base64\", \"binary\" and \"ubinary\"";
    let names = words("embedding_types", raw, expected)?.unwrap_or_default();
    let is_unknown = |name: &&String| FORMS.iter().all(|(known, _)| known != name);
    if let Some(unknown) = names.iter().find(is_unknown) {
        return Err(wrong("embedding_types", expected, &format!("{unknown:?}")));
    }
    let is_asked = |(known, form): &(&str, DenseForm)| match names.as_slice() {
        [] => *form == DenseForm::Float,
        names => names.iter().any(|name| name == known),
    };
    Ok(FORMS.into_iter().filter(is_asked).collect())
}

fn render(answer: &EmbedResponse, id: &str, forms: &[(&str, DenseForm)]) -> Vec<u8> {
    let mut out = br#"{"id":"#.to_vec();
    json::write(&mut out, id);
    out.extend_from_slice(br#","embeddings":{"#);
    for (i, (name, form)) in forms.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write(&mut out, name);
        out.push(b':');
        json::list(&mut out, &answer.embeddings, |out, embedding| {
            form.write(out, embedding.dense.as_ref());
        });
    }
    let n = answer.n_tokens();
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"input_tokens": n}});
    out.extend_from_slice(br#"},"meta":"#);
    json::write(&mut out, &meta);
    out.extend_from_slice(br#","response_type":"embeddings_by_type"}"#);
    out
}
