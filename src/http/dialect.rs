//! The dialects that clients speak, and their envelopes for errors.

use embedgate_request::{Error, ErrorKind};
use serde_json::{Value, json};

use crate::model::tokenizer::TOKENIZER;

/// The API that a route follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `OpenAI`.
    OpenAi,
    /// Jina, where its routes are its own: as `OpenAI`, and in one more member.
    Jina,
    /// text-embeddings-inference.
    Tei,
    /// Ollama.
    Ollama,
    /// Cohere, version 2.
    Cohere,
}

impl Dialect {
    /// Guesses the dialect of a client that asks for an unknown path; none when the path does not tell it.
    pub(super) fn of_unknown(path: &str) -> Option<Self> {
        let begins = [("/api/", Self::Ollama), ("/v2/", Self::Cohere)];
        let found = begins.iter().find(|(begin, _)| path.starts_with(begin));
        found.map(|(_, dialect)| *dialect)
    }

    /// The body of an error: `kind` and `code` are `OpenAI`'s words for it, the message is for people.
    pub(super) fn envelope(
        self,
        error: &Error,
        message: &str,
        kind: &str,
        code: Option<&str>,
    ) -> Value {
        match self {
            Self::OpenAi => {
                json!({"error": {"message": message, "type": kind, "param": error.param, "code": code}})
            }
            Self::Jina => {
                let mut envelope = Self::OpenAi.envelope(error, message, kind, code);
                envelope["detail"] = message.into();
                envelope
            }
            Self::Tei => json!({"error": message, "error_type": tei_type(error)}),
            Self::Ollama => json!({"error": message}),
            Self::Cohere => json!({"message": message}),
        }
    }
}

/// Source: text-embeddings-inference 1.9, `core/src/lib.rs` and `router/src/http/server.rs`, `ErrorType`.
fn tei_type(error: &Error) -> &'static str {
    match error.kind {
        ErrorKind::InvalidRequest => match error.code.as_deref() {
            Some(EMPTY) => "Empty",
            Some(TOKENIZER) => "Tokenizer",
            _ => "Validation",
        },
        ErrorKind::Overloaded => "Overloaded",
        ErrorKind::Unavailable => "Unhealthy",
        ErrorKind::Internal | ErrorKind::DeadlineExceeded => "Backend",
        _ => "Validation",
    }
}

/// The code of a request without any input, which text-embeddings-inference tells from others.
pub(super) const EMPTY: &str = "empty_input";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_types_of_text_embeddings_inference() {
        let invalid = || Error::invalid("inputs", "no");
        for (error, expected) in [
            (invalid(), "Validation"),
            (invalid().with_code(EMPTY), "Empty"),
            (invalid().with_code(TOKENIZER), "Tokenizer"),
            (Error::new(ErrorKind::ModelNotFound, "no"), "Validation"),
            (Error::new(ErrorKind::Overloaded, "no"), "Overloaded"),
            (Error::new(ErrorKind::Unavailable, "no"), "Unhealthy"),
            (Error::new(ErrorKind::Internal, "no"), "Backend"),
            (Error::new(ErrorKind::DeadlineExceeded, "no"), "Backend"),
        ] {
            assert_eq!(tei_type(&error), expected, "{error:?}");
        }
    }
}
