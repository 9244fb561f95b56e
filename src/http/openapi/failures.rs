//! The form of errors in each dialect.

use embedgate_request::{Error, ErrorKind};
use utoipa::ToSchema;

use super::operation::Body;
use crate::http::dialect::{Dialect, EMPTY};

/// The envelope of a dialect.
pub(super) fn envelope(dialect: Dialect) -> Body {
    match dialect {
        Dialect::OpenAi => Body::of::<OpenAiFailure>(),
        Dialect::Jina => Body::of::<JinaFailure>(),
        Dialect::Tei => Body::of::<TeiFailure>(),
        Dialect::Ollama => Body::of::<OllamaFailure>(),
        Dialect::Cohere => Body::of::<CohereFailure>(),
    }
}

/// Returns a sentence about the meaning of an error for the request or the server.
pub(super) fn meaning(error: &Error) -> &'static str {
    match error.kind {
        ErrorKind::InvalidRequest if error.code.as_deref() == Some(EMPTY) => "There are no inputs.",
        ErrorKind::InvalidRequest => {
            "The request is wrong; the message says what, and what would be right."
        }
        ErrorKind::Unauthenticated => "No or an unknown key.",
        ErrorKind::Forbidden => "The key does not allow this.",
        ErrorKind::ModelNotFound => "No such model.",
        ErrorKind::RouteNotFound => "No such route.",
        ErrorKind::MethodNotAllowed => "The route has other methods.",
        ErrorKind::RequestTimeout => "The client was too slow in sending its request.",
        ErrorKind::PayloadTooLarge => "The body or its parts are too large.",
        ErrorKind::Overloaded => "Too many requests wait, or the key's limit is reached.",
        ErrorKind::Internal => "Something went wrong inside; the log has the cause.",
        ErrorKind::Unavailable => "Not now: loading, shutting down, or the model is down.",
        ErrorKind::DeadlineExceeded => "The request's time is over.",
        ErrorKind::Refused(_) => "A plugin refused it.",
    }
}

/// An error as OpenAI writes it.
#[derive(ToSchema)]
pub(super) struct OpenAiFailure {
    error: OpenAiError,
}

/// An error as Jina's clients read it.
#[derive(ToSchema)]
struct JinaFailure {
    error: OpenAiError,
    detail: String,
}

#[derive(ToSchema)]
struct OpenAiError {
    message: String,
    /// Such as invalid_request_error, rate_limit_error and server_error.
    r#type: String,
    /// The member of the request that is wrong.
    param: Option<String>,
    /// Such as model_not_found.
    code: Option<String>,
}

/// An error as text-embeddings-inference writes it.
#[derive(ToSchema)]
struct TeiFailure {
    error: String,
    error_type: TeiErrorType,
}

#[derive(ToSchema)]
enum TeiErrorType {
    Unhealthy,
    Backend,
    Overloaded,
    Validation,
    Tokenizer,
    Empty,
}

/// An error as Ollama writes it.
#[derive(ToSchema)]
struct OllamaFailure {
    error: String,
}

/// An error as Cohere writes it.
#[derive(ToSchema)]
struct CohereFailure {
    message: String,
}
