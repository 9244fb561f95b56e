//! From the bytes of a body to a request. Every error names the field.

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed},
};
use serde_json::{error::Category, value::RawValue};

use super::input::Inputs;
use crate::{
    error::Error,
    request::{EmbedRequest, Input, InputKind, TokenIds, VectorText},
};

/// What plugins are shown of the members that mean nothing here.
const MOST_EXTRA: usize = 64;
const MOST_EXTRA_BYTES: usize = 64 << 10;
/// The members that mean something, as in [`Fields`].
const KNOWN: [&str; 7] = [
    "model",
    "input",
    "encoding_format",
    "dimensions",
    "truncate",
    "input_type",
    "user",
];

/// The fields that mean something here; all others are ignored. Each stays text until its own type is asked of it, so
/// that an error can say which field is wrong.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    encoding_format: Option<&'a RawValue>,
    dimensions: Option<&'a RawValue>,
    truncate: Option<&'a RawValue>,
    input_type: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
}

/// Reads a body; `max_inputs` bounds the entries of `input`.
pub(super) fn request(
    bytes: &[u8],
    max_inputs: usize,
) -> Result<(EmbedRequest, VectorText), Error> {
    let fields = fields(bytes)?;
    let Some(input) = fields.input else {
        let message = "input is missing: a string, a list of strings, or lists of token ids";
        return Err(Error::invalid("input", message));
    };
    let dimensions = typed(
        "dimensions",
        fields.dimensions,
        "a whole number, at least 1",
    )?;
    let encoding = encoding(fields.encoding_format)?;
    let request = EmbedRequest {
        model: typed("model", fields.model, "a string")?,
        text: Some(encoding),
        kind: kind(fields.input_type),
        user: user(fields.user),
        token_ids: TokenIds::Cl100k,
        dimensions: dimensions.filter(|n| *n > 0),
        truncate: typed("truncate", fields.truncate, "true or false")?,
        ..EmbedRequest::new(inputs(input, max_inputs)?)
    };
    Ok((request, encoding))
}

/// The errors of inputs say themselves which entry is wrong.
fn inputs(raw: &RawValue, max: usize) -> Result<Vec<Input>, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    Inputs { max }.deserialize(&mut deserializer).map_err(|e| {
        let message = without_place(&e.to_string()).to_owned();
        match e.classify() {
            Category::Data => Error::invalid("input", message),
            _ => Error::invalid("input", format!("input is not valid JSON: {message}")),
        }
    })
}

fn fields(bytes: &[u8]) -> Result<Fields<'_>, Error> {
    let bad = |message: String| Error::new(crate::error::ErrorKind::InvalidRequest, message);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        bad(format!(
            "the body is not valid UTF-8 at byte {}",
            e.valid_up_to()
        ))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        Some('{') => {}
        None => {
            return Err(bad(
                "the body is empty: expected a JSON object with model and input".into(),
            ));
        }
        Some(_) => {
            return Err(bad(
                "the body is not a JSON object: expected one with model and input".into(),
            ));
        }
    }
    serde_json::from_str(text).map_err(|e| bad(format!("the body is not valid JSON: {e}")))
}

/// What the inputs are for, in the words of Cohere, Voyage and NVIDIA. `OpenAI` has no such field: another value is ignored.
fn kind(raw: Option<&RawValue>) -> InputKind {
    let text = raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    match text.as_deref() {
        Some("query" | "search_query") => InputKind::Query,
        Some("document" | "passage" | "search_document") => InputKind::Document,
        _ => InputKind::Unspecified,
    }
}

/// The end user, where it is a text; anything else was always ignored.
fn user(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// The members of a body that mean nothing here, as JSON text. Empty where there are more than plugins are shown.
pub(super) fn extra(bytes: &[u8]) -> Vec<(String, String)> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The body was read as an object before.
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
    let unknown = members
        .into_iter()
        .filter(|(name, _)| !KNOWN.contains(&name.as_str()))
        .map(|(name, json)| (name, json.get().to_owned()));
    let unknown: Vec<_> = unknown.collect();
    let bytes: usize = unknown
        .iter()
        .map(|(name, json)| name.len() + json.len())
        .sum();
    if unknown.len() > MOST_EXTRA || bytes > MOST_EXTRA_BYTES {
        return Vec::new();
    }
    unknown
}

fn encoding(raw: Option<&RawValue>) -> Result<VectorText, Error> {
    let expected = "\"float\" or \"base64\"";
    match typed::<String>("encoding_format", raw, expected)?.as_deref() {
        None | Some("float") => Ok(VectorText::Numbers),
        Some("base64") => Ok(VectorText::Base64),
        Some(other) => Err(wrong("encoding_format", expected, &format!("{other:?}"))),
    }
}

fn typed<T: DeserializeOwned>(
    name: &'static str,
    raw: Option<&RawValue>,
    expected: &str,
) -> Result<Option<T>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get())
        .map(Some)
        .map_err(|e| match e.classify() {
            Category::Data => wrong(name, expected, raw.get()),
            // Syntax within a string, such as a lone surrogate.
            _ => Error::invalid(
                name,
                format!(
                    "{name} is not valid JSON: {}",
                    without_place(&e.to_string())
                ),
            ),
        })
}

fn wrong(name: &'static str, expected: &str, got: &str) -> Error {
    let mut shown: String = got.chars().take(40).collect();
    if shown.len() < got.len() {
        shown.push_str("...");
    }
    Error::invalid(name, format!("{name} must be {expected}, got {shown}"))
}

/// Line and column count from the field's own start, which would mislead.
pub(super) fn without_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(json: &str) -> Result<Vec<Input>, String> {
        let parsed = request(json.as_bytes(), 100);
        parsed
            .map(|(request, _)| request.inputs)
            .map_err(|error| error.message)
    }

    #[test]
    fn every_form_of_input_is_read() {
        let text = |text: &str| Input::Text(text.into());
        let cases = [
            (r#"{"input":"a"}"#, vec![text("a")]),
            (
                r#"{"input":["a",""," "]}"#,
                vec![text("a"), text(""), text(" ")],
            ),
            (r#"{"input":[1,2]}"#, vec![Input::Tokens(vec![1, 2])]),
            (
                r#"{"input":[[1],[2,3]]}"#,
                vec![Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])],
            ),
            (
                "  {\"user\":5,\"nested\":[[[[{}]]]],\"input\":\"\\ud83d\\ude00\"}\n",
                vec![text("😀")],
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(inputs(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn null_counts_as_absent_and_zero_dimensions_too() {
        let json =
            r#"{"model":null,"input":"a","encoding_format":null,"dimensions":0,"truncate":null}"#;
        let (request, encoding) = request(json.as_bytes(), 100).unwrap();
        assert_eq!(
            (request.model, request.dimensions, request.truncate),
            (None, None, None)
        );
        assert_eq!(encoding, VectorText::Numbers);
    }
}
