//! Reads the members of a body's JSON object one by one, so that every error names its field; and writes answers.

use embedgate_request::{Error, ErrorKind, Input, InputKind, Side};
use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed},
};
use serde_json::{error::Category, value::RawValue};

use super::{dialect::EMPTY, input::Inputs};

/// Most members without a meaning here that plugins are shown. The next constant limits their bytes.
pub(super) const MOST_EXTRA: usize = 64;
const MOST_EXTRA_BYTES: usize = 64 << 10;
/// A list of a few words, as JSON.
const MOST_WORDS_BYTES: usize = 1 << 10;

/// Reads a body as an object. Its members stay text until their own types are asked of them; `expected` says which
/// ones there should be.
pub(super) fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8], expected: &str) -> Result<T, Error> {
    let bad = |message: String| Error::new(ErrorKind::InvalidRequest, message);
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
            return Err(bad(format!(
                "the body is empty: expected a JSON object with {expected}"
            )));
        }
        Some(_) => {
            return Err(bad(format!(
                "the body is not a JSON object: expected one with {expected}"
            )));
        }
    }
    serde_json::from_str(text).map_err(|e| bad(format!("the body is not valid JSON: {e}")))
}

/// Reads one member; null counts as absent.
pub(super) fn typed<T: DeserializeOwned>(
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

/// Says what a member should be.
pub(super) fn wrong(name: &'static str, expected: &str, got: &str) -> Error {
    let mut shown: String = got.chars().take(40).collect();
    if shown.len() < got.len() {
        shown.push_str("...");
    }
    Error::invalid(name, format!("{name} must be {expected}, got {shown}"))
}

/// Reads a number of things; 0 counts as absent.
pub(super) fn count(name: &'static str, raw: Option<&RawValue>) -> Result<Option<usize>, Error> {
    // The largest is that of the document, and of other languages.
    let expected = "a whole number from 1 to 9223372036854775807";
    let n: Option<i64> = typed(name, raw, expected)?;
    let n = n.map(|n| usize::try_from(n).map_err(|_| wrong(name, expected, &n.to_string())));
    Ok(n.transpose()?.filter(|n| *n > 0))
}

/// Reads the side on which text-embeddings-inference cuts over-long texts.
pub(super) fn truncation_direction(raw: Option<&RawValue>) -> Result<Option<Side>, Error> {
    let sides = [
        ("Right", Side::Right),
        ("Left", Side::Left),
        ("right", Side::Right),
        ("left", Side::Left),
    ];
    one_of("truncation_direction", raw, &sides)
}

/// Reads one of several words.
pub(super) fn one_of<T: Copy>(
    name: &'static str,
    raw: Option<&RawValue>,
    words: &[(&str, T)],
) -> Result<Option<T>, Error> {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let expected = quoted.join(" or ");
    let Some(given) = typed::<String>(name, raw, &expected)? else {
        return Ok(None);
    };
    let known = words.iter().find(|(word, _)| *word == given);
    known
        .map(|(_, value)| Some(*value))
        .ok_or_else(|| wrong(name, &expected, &format!("{given:?}")))
}

/// Reads inputs in any of their forms.
pub(super) fn inputs(form: Inputs, raw: Option<&RawValue>) -> Result<Vec<Input>, Error> {
    let name = form.name;
    let Some(raw) = raw else {
        let message =
            format!("{name} is missing: a string, a list of strings, or lists of token ids");
        return Err(Error::invalid(name, message));
    };
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    // The errors of inputs say themselves which entry is wrong.
    let read = form.deserialize(&mut deserializer);
    read.map_err(|e| {
        let message = without_place(&e.to_string()).to_owned();
        match e.classify() {
            Category::Data if is_empty_list(raw) => Error::invalid(name, message).with_code(EMPTY),
            Category::Data => Error::invalid(name, message),
            _ => Error::invalid(name, format!("{name} is not valid JSON: {message}")),
        }
    })
}

/// Reads texts alone, at most `max` of them.
pub(super) fn texts(
    name: &'static str,
    raw: Option<&RawValue>,
    max: usize,
) -> Result<Vec<Input>, Error> {
    let list = "a list of strings, or of objects with text";
    if raw.is_none() {
        return Err(Error::invalid(name, format!("{name} is missing: {list}")));
    }
    let all = inputs(Inputs::alike(name, max), raw)?;
    if all.iter().any(|input| matches!(input, Input::Tokens(_))) {
        let message = format!("{name} must be {list}, not token ids");
        return Err(Error::invalid(name, message));
    }
    Ok(all)
}

/// Reads a few words.
pub(super) fn words(
    name: &'static str,
    raw: Option<&RawValue>,
    expected: &str,
) -> Result<Option<Vec<String>>, Error> {
    // Longer ones repeat themselves, and would take many times their length.
    match raw.filter(|raw| raw.get().len() > MOST_WORDS_BYTES) {
        Some(raw) => Err(wrong(name, expected, raw.get())),
        None => typed(name, raw, expected),
    }
}

fn is_empty_list(raw: &RawValue) -> bool {
    let inner = raw
        .get()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

/// Reads the purpose of inputs in the words of Cohere, Voyage, NVIDIA and Jina; other words say nothing.
pub(super) fn kind(word: Option<&str>) -> InputKind {
    match word {
        Some("query" | "search_query" | "retrieval.query") => InputKind::Query,
        Some("document" | "passage" | "search_document" | "retrieval.passage") => {
            InputKind::Document
        }
        _ => InputKind::Unspecified,
    }
}

/// A member that is a string, where it is one; clients of other servers send anything.
pub(super) fn perhaps(raw: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

/// Returns the members without a meaning here as JSON text for plugins; nothing when they exceed a limit.
pub(super) fn extra(unknown: &[(String, &RawValue)]) -> Vec<(String, String)> {
    let bytes: usize = unknown
        .iter()
        .map(|(name, json)| name.len() + json.get().len())
        .sum();
    if unknown.len() > MOST_EXTRA || bytes > MOST_EXTRA_BYTES {
        return Vec::new();
    }
    let texts = unknown.iter();
    texts
        .map(|(name, json)| (name.clone(), json.get().to_owned()))
        .collect()
}

/// Line and column count from the field's own start, which would mislead.
pub(super) fn without_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or_default()
}

/// Appends anything that serializes.
pub(super) fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value)
        .expect("strings and finite numbers into memory always succeed");
}

/// Appends a list, an item at a time.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, one) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, one);
    }
    out.push(b']');
}
