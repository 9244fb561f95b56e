//! The dialects that clients speak, and their envelopes for errors.

use axum::http::Method;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// Whose API a route is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `OpenAI`, and Jina, whose routes and errors are alike.
    OpenAi,
    /// text-embeddings-inference.
    Tei,
    /// Ollama.
    Ollama,
    /// Cohere, version 2.
    Cohere,
}

impl Dialect {
    /// The dialect of a route, as the route table writes it.
    pub(super) fn of(method: &Method, route: &str) -> Self {
        match route {
            "/embed" | "/embed_sparse" | "/similarity" | "/tokenize" | "/decode" | "/info" => {
                Self::Tei
            }
            "/" if method == Method::POST => Self::Tei,
            "/v2/embed" | "/v2/rerank" => Self::Cohere,
            route if route.starts_with("/api/") => Self::Ollama,
            _ => Self::OpenAi,
        }
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
            Self::Tei => json!({"error": message, "error_type": tei_type(error)}),
            Self::Ollama => json!({"error": message}),
            Self::Cohere => json!({"message": message}),
        }
    }
}

/// Source: text-embeddings-inference 1.9, `core/src/lib.rs` and `router/src/http/server.rs`, `ErrorType`.
fn tei_type(error: &Error) -> &'static str {
    match error.kind {
        ErrorKind::InvalidRequest if error.code.as_deref() == Some(EMPTY) => "Empty",
        ErrorKind::Overloaded => "Overloaded",
        ErrorKind::Unavailable => "Unhealthy",
        ErrorKind::Internal | ErrorKind::DeadlineExceeded => "Backend",
        _ => "Validation",
    }
}

/// The code of a request without any input, which text-embeddings-inference tells from others.
pub(super) const EMPTY: &str = "empty_input";
