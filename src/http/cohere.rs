//! `POST /v2/embed` as Cohere speaks it.
//!
//! Source: Cohere's API reference, version 2, "Embed".

use axum::response::Response;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    error::Failed,
    exchange::Exchange,
    json::{self, count, inputs, kind, object, one_of, perhaps, typed, words, wrong},
};
use crate::{
    error::Error,
    request::{Dense, EmbedRequest, EmbedResponse, Side, TokenIds, VectorText},
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
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Float,
    Base64,
    /// A bit a number, whether it is above 0: eight in a signed byte, the first the highest.
    Binary,
    /// The same in unsigned bytes.
    Ubinary,
}

const FORMS: [(&str, Form); 4] = [
    ("float", Form::Float),
    ("base64", Form::Base64),
    ("binary", Form::Binary),
    ("ubinary", Form::Ubinary),
];

/// Those that a request asks for, under their names.
type Forms = Vec<(&'static str, Form)>;

pub(super) async fn embed(mut exchange: Exchange) -> Result<Response, Failed> {
    let (request, forms) = exchange.parse(&KNOWN, parse).await?;
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
        side: end.flatten().unwrap_or(Side::Right),
        ..EmbedRequest::new(inputs("texts", fields.texts, max_inputs)?)
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
    let is_asked = |(known, form): &(&str, Form)| match names.as_slice() {
        [] => *form == Form::Float,
        names => names.iter().any(|name| name == known),
    };
    Ok(FORMS.into_iter().filter(is_asked).collect())
}

fn render(answer: &EmbedResponse, id: &str, forms: &[(&str, Form)]) -> Vec<u8> {
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
            if let Some(Dense::Numbers(vector)) = &embedding.dense {
                write_vector(out, vector, *form);
            }
        });
    }
    let n = answer.n_tokens();
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"input_tokens": n}});
    out.extend_from_slice(br#"},"meta":"#);
    json::write(&mut out, &meta);
    out.extend_from_slice(br#","response_type":"embeddings_by_type"}"#);
    out
}

fn write_vector(out: &mut Vec<u8>, vector: &[f32], form: Form) {
    let bits = |eight: &[f32]| {
        let bit = |(i, x): (usize, &f32)| u8::from(*x > 0.0) << (7 - i);
        eight.iter().enumerate().map(bit).sum::<u8>()
    };
    match form {
        Form::Float => VectorText::Numbers.write(vector, out),
        Form::Base64 => VectorText::Base64.write(vector, out),
        Form::Ubinary => json::list(out, vector.chunks(8), |out, eight| {
            json::write(out, &bits(eight));
        }),
        Form::Binary => json::list(out, vector.chunks(8), |out, eight| {
            json::write(out, &(i16::from(bits(eight)) - 128));
        }),
    }
}
