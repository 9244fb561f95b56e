//! Members of bodies that other servers document and this one does not know: one that asks for what is done anyway is taken, one
//! that asks for something else is refused by name, since the answer would be of another meaning. What nobody documents is
//! ignored and counted.

use std::borrow::Cow;

use embedgate_request::Error;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::json::MOST_EXTRA;

/// A member that another server documents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    name: &'static str,
    /// The values that ask for what is done anyway, as JSON; null always does.
    done: &'static [&'static str],
    /// The advice for the client, in place of this member.
    instead: &'static str,
}

/// The members of a body that a dialect knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members {
    /// The members that have a meaning in this dialect.
    pub(super) known: &'static [&'static str],
    /// The members that the dialect's peers document.
    pub(super) foreign: &'static [Foreign],
}

pub(super) const fn foreign(
    name: &'static str,
    done: &'static [&'static str],
    instead: &'static str,
) -> Foreign {
    Foreign {
        name,
        done,
        instead,
    }
}

/// The foreign members of requests for embeddings, as vLLM, Voyage, Mistral, Jina, infinity and Xinference document
/// them.
pub(super) const OF_EMBEDDINGS: &[Foreign] = &[
    foreign(
        "output_dtype",
        &["\"float\""],
        "leave it out for numbers, or ask for embedding_type \"binary\" or \"ubinary\"",
    ),
    foreign(
        "embed_dtype",
        &["\"float32\""],
        "leave it out: vectors are float32",
    ),
    foreign(
        "endianness",
        &["\"native\"", "\"little\""],
        "leave it out: base64 is of little-endian numbers",
    ),
    foreign(
        "add_special_tokens",
        &["true"],
        "leave it out, or send the model's own token ids",
    ),
    foreign("modality", &["\"text\""], "send texts"),
    foreign("messages", &[], "send texts in input"),
    foreign(
        "embedding_types",
        &["[\"float\"]"],
        "say encoding_format, or ask /v2/embed",
    ),
    foreign(
        "return_multivector",
        &["false"],
        "ask for outputs [\"colbert\"]",
    ),
    foreign("return_sparse", &["false"], "ask for outputs [\"sparse\"]"),
    foreign("return_dense", &["true"], "say outputs without \"dense\""),
    foreign(
        "return_colbert_vecs",
        &["false"],
        "ask for outputs [\"colbert\"]",
    ),
];

/// The foreign members of requests for rankings, as Jina, vLLM and Cohere's first version document them.
pub(super) const OF_RERANK: &[Foreign] = &[
    foreign(
        "return_embeddings",
        &["false"],
        "ask /v1/embeddings for them",
    ),
    foreign("rank_fields", &[], "send documents as texts"),
    foreign(
        "max_chunks_per_doc",
        &[],
        "leave it out, or say long_documents \"windows\"",
    ),
    foreign("truncate_prompt_tokens", &["-1"], "say max_tokens_per_doc"),
    foreign("activation", &["true"], "say raw_scores"),
    foreign("use_activation", &["true"], "say raw_scores"),
];

/// The members of a body that mean nothing to its dialect.
#[derive(Debug, Default)]
pub(super) struct Unknown<'a> {
    /// By their names; one more than plugins are shown at most.
    pub(super) kept: Vec<(String, &'a RawValue)>,
    /// The number of those that nobody documents.
    pub(super) n_ignored: usize,
}

impl Members {
    /// Reads a body, which was read as an object before, past the known members.
    ///
    /// # Errors
    /// `InvalidRequest` names a member that asks for what is not done.
    pub(super) fn unknown(self, bytes: &[u8]) -> Result<Unknown<'_>, Error> {
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut body = serde_json::Deserializer::from_str(text);
        self.deserialize(&mut body)
            .unwrap_or_else(|_| Ok(Unknown::default()))
    }

    /// Finds out if a member is one of the dialect's peers.
    ///
    /// # Errors
    /// As [`Members::unknown`].
    fn check(self, name: &str, value: &RawValue) -> Result<bool, Error> {
        let Some(foreign) = self.foreign.iter().find(|foreign| foreign.name == name) else {
            return Ok(false);
        };
        let value = without_space(value.get());
        if value == "null" || foreign.done.contains(&value.as_str()) {
            return Ok(true);
        }
        let shown: String = value.chars().take(40).collect();
        let message = format!("{name} {shown} is not supported: {}", foreign.instead);
        Err(Error::invalid(foreign.name, message))
    }
}

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Result<Unknown<'de>, Error>;

    fn deserialize<D: Deserializer<'de>>(self, body: D) -> Result<Self::Value, D::Error> {
        body.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Result<Unknown<'de>, Error>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut unknown, mut refused) = (Unknown::default(), None);
        while let Some(Name(name)) = members.next_key()? {
            if self.known.contains(&&*name) || refused.is_some() {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = members.next_value()?;
            match self.check(&name, value) {
                Ok(is_foreign) => unknown.n_ignored += usize::from(!is_foreign),
                Err(error) => refused = Some(error),
            }
            // More would take memory that nobody counts.
            if unknown.kept.len() <= MOST_EXTRA {
                unknown.kept.push((name.into_owned(), value));
            }
        }
        Ok(refused.map_or(Ok(unknown), Err))
    }
}

/// A name without a copy, where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// JSON without the white space that it may have around its parts. Those that are compared have none in their strings.
fn without_space(json: &str) -> String {
    json.chars()
        .filter(|c| !c.is_ascii_whitespace())
        .take(100)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<usize, String> {
        let members = Members {
            known: &["input"],
            foreign: OF_EMBEDDINGS,
        };
        let unknown = members.unknown(body.as_bytes());
        unknown
            .map(|unknown| unknown.n_ignored)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_done_anyway_is_taken_what_is_not_is_named_and_the_rest_is_counted() {
        assert_eq!(check(r#"{"input":"a"}"#), Ok(0));
        assert_eq!(
            check(
                r#"{"input":"a","output_dtype":"float","embedding_types":[ "float" ],"messages":null}"#
            ),
            Ok(0)
        );
        assert_eq!(check(r#"{"input":"a","drop_params":true,"x":1}"#), Ok(2));
        for (body, name) in [
            (r#"{"output_dtype":"int8"}"#, "output_dtype \"int8\""),
            (
                r#"{"add_special_tokens":false}"#,
                "add_special_tokens false",
            ),
            (r#"{"messages":[{"role":"user"}]}"#, "messages"),
        ] {
            let error = check(body).unwrap_err();
            assert!(
                error.contains(name) && error.contains("not supported"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_member_is_found_behind_any_number_of_others() {
        let junk: String = (0..1000).map(|i| format!("\"x{i}\":0,")).collect();
        assert_eq!(check(&format!("{{{junk}\"input\":\"a\"}}")), Ok(1000));
        let error = check(&format!("{{{junk}\"output_dtype\":\"int8\"}}")).unwrap_err();
        assert!(error.contains("output_dtype"), "{error}");
    }
}
