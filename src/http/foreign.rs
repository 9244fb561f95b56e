//! Members of bodies that other servers document and this one does not know: one that asks for what is done anyway is taken, one
//! that asks for something else is refused by name, since the answer would be of another meaning. What nobody documents is
//! ignored and counted.

use embedgate_request::Error;
use serde_json::value::RawValue;

/// A member that another server documents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    name: &'static str,
    /// The values that ask for what is done anyway, as JSON; null always does.
    done: &'static [&'static str],
    /// The advice for the client, in place of this member.
    instead: &'static str,
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

/// Finds out if a member is one of those that the dialect's peers document.
///
/// # Errors
/// `InvalidRequest` names a member that asks for what is not done.
pub(super) fn is_foreign(all: &[Foreign], name: &str, value: &RawValue) -> Result<bool, Error> {
    let Some(foreign) = all.iter().find(|foreign| foreign.name == name) else {
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

    fn check(name: &str, value: &str) -> Result<bool, String> {
        let value: &RawValue = serde_json::from_str(value).unwrap();
        is_foreign(OF_EMBEDDINGS, name, value).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_done_anyway_is_taken_what_is_not_is_named_and_the_rest_is_nobodys() {
        for (name, value) in [
            ("output_dtype", "\"float\""),
            ("embedding_types", "[ \"float\" ]"),
            ("messages", "null"),
        ] {
            assert_eq!(check(name, value), Ok(true), "{name}");
        }
        assert_eq!(check("drop_params", "true"), Ok(false));
        assert_eq!(check("x", "1"), Ok(false));
        for (name, value, shown) in [
            ("output_dtype", r#""int8""#, "output_dtype \"int8\""),
            ("add_special_tokens", "false", "add_special_tokens false"),
            ("messages", r#"[{"role":"user"}]"#, "messages"),
        ] {
            let error = check(name, value).unwrap_err();
            assert!(
                error.contains(shown) && error.contains("not supported"),
                "{error}"
            );
        }
    }
}
