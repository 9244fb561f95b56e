//! Turns errors into answers. The only file that chooses a status code.

use std::{any::Any, borrow::Cow};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use embedgate_request::{Error, ErrorKind};

use super::{
    dialect::{Dialect, EMPTY},
    trace::{Cause, ErrorCode},
};

/// Retry-After is at most this many seconds: clients wait no longer anyway.
const MAX_RETRY_AFTER: u64 = 60;

/// Longer messages are cut: clients show them to people.
const MAX_MESSAGE: usize = 500;

/// The error that a handler answers in place of a result. [`render`] makes the answer of it, in the dialect of the route.
#[derive(Clone)]
pub(super) struct Failed {
    error: Error,
    /// The dialect that the handler found, when the route has clients of several dialects.
    dialect: Option<Dialect>,
}

impl Failed {
    /// Says it in the words of a dialect, whatever the route's is.
    pub(super) fn in_words_of(self, dialect: Dialect) -> Self {
        Self {
            dialect: Some(dialect),
            ..self
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            dialect: None,
        }
    }
}

/// An answer that is still to be written.
impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the error of a route in its dialect, where the answer is one.
pub(super) fn render(mut response: Response, dialect: Dialect) -> Response {
    match response.extensions_mut().remove() {
        Some(Failed {
            error,
            dialect: own,
        }) => {
            let allowed = response.headers_mut().remove(header::ALLOW);
            let mut response = say(&error, own.unwrap_or(dialect));
            // The router's own word about methods.
            let headers = response.headers_mut();
            allowed.map(|methods| headers.insert(header::ALLOW, methods));
            response
        }
        None => response,
    }
}

fn say(error: &Error, dialect: Dialect) -> Response {
    let (status, kind, default_code) = rendering(error.kind);
    let status = status_of(dialect, status, error);
    let cause = error.source.is_some().then(|| Cause(error.clone()));
    let is_ours = !matches!(error.kind, ErrorKind::Refused(_));
    let code = error.code.clone().or(default_code.map(Into::into));
    // What went wrong inside is the log's; where it went wrong (which input) the client may know.
    let message = match error.kind {
        ErrorKind::Internal => {
            format!("{error}; the server's log has the cause under this request's id")
        }
        _ => error.to_string(),
    };
    let body = dialect.envelope(error, &short(message), kind, code.as_deref());
    let mut response = (status, Json(body)).into_response();
    // A plugin's own codes may be any number: metrics know them as one.
    let label = match (is_ours, &code) {
        (true, Some(Cow::Borrowed(code))) => code,
        (true, _) => kind,
        (false, _) => "plugin_refused",
    };
    response.extensions_mut().insert(ErrorCode {
        label,
        code: code.unwrap_or(Cow::Borrowed(kind)),
    });
    if let Some(cause) = cause {
        response.extensions_mut().insert(cause);
    }
    if let Some(after) = error.retry_after {
        let seconds = after
            .as_millis()
            .div_ceil(1000)
            .clamp(1, u128::from(MAX_RETRY_AFTER));
        let ms = after.as_millis().min(u128::from(MAX_RETRY_AFTER) * 1000);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            headers.insert(header::RETRY_AFTER, value);
        }
        // OpenAI's clients prefer this one.
        if let Ok(value) = HeaderValue::from_str(&ms.to_string()) {
            headers.insert("retry-after-ms", value);
        }
    }
    add_headers(response.headers_mut(), error.headers());
    if status == StatusCode::UNAUTHORIZED {
        let headers = response.headers_mut();
        let given = headers.entry(header::WWW_AUTHENTICATE);
        given.or_insert(HeaderValue::from_static("Bearer"));
    }
    response
}

/// The status of an error in a dialect, for the document.
pub(super) fn status(dialect: Dialect, error: &Error) -> u16 {
    let (status, ..) = rendering(error.kind);
    status_of(dialect, status, error).as_u16()
}

/// Returns the status of an error in a dialect: text-embeddings-inference chose other statuses than the rest of the
/// field.
///
/// Source: text-embeddings-inference 1.9, `router/src/http/server.rs`, `impl From<&ErrorType> for StatusCode`.
fn status_of(dialect: Dialect, status: StatusCode, error: &Error) -> StatusCode {
    match (dialect, error.kind) {
        (Dialect::Tei, ErrorKind::InvalidRequest) if error.code.as_deref() == Some(EMPTY) => status,
        (Dialect::Tei, ErrorKind::InvalidRequest) => StatusCode::UNPROCESSABLE_ENTITY,
        (Dialect::Tei, ErrorKind::Internal) => StatusCode::FAILED_DEPENDENCY,
        _ => status,
    }
}

/// Adds headers that a plugin has set; they were checked when the plugin answered.
pub(super) fn add_headers(headers: &mut HeaderMap, added: &[(String, String)]) {
    for (name, value) in added {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            // One value of its kind, or one of several plugins.
            if name == header::RETRY_AFTER || name == header::WWW_AUTHENTICATE {
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
    }
}

/// Status, `type` and the `code` for errors that name none.
fn rendering(kind: ErrorKind) -> (StatusCode, &'static str, Option<&'static str>) {
    let client = "invalid_request_error";
    match kind {
        ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, client, None),
        ErrorKind::Unauthenticated => (StatusCode::UNAUTHORIZED, client, Some("invalid_api_key")),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "permission_error", None),
        ErrorKind::ModelNotFound => (StatusCode::NOT_FOUND, client, Some("model_not_found")),
        ErrorKind::RouteNotFound => (StatusCode::NOT_FOUND, client, Some("unknown_url")),
        ErrorKind::MethodNotAllowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            client,
            Some("method_not_allowed"),
        ),
        ErrorKind::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, client, Some("request_timeout")),
        ErrorKind::PayloadTooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            client,
            Some("payload_too_large"),
        ),
        ErrorKind::Overloaded => (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            Some("overloaded"),
        ),
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", None),
        ErrorKind::Unavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            Some("unavailable"),
        ),
        ErrorKind::DeadlineExceeded => (
            StatusCode::GATEWAY_TIMEOUT,
            "server_error",
            Some("deadline_exceeded"),
        ),
        ErrorKind::Refused(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let kind = match status {
                StatusCode::FORBIDDEN => "permission_error",
                StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
                status if status.is_server_error() => "server_error",
                _ => client,
            };
            (status, kind, None)
        }
    }
}

/// Messages quote what the client sent, which may be long.
fn short(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// The answer of a probe: 200, or 503 where nothing serves.
pub(super) fn probe(serving: bool, body: serde_json::Value) -> Response {
    let status = if serving {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

/// Answers for a command: 200 when all of it is done, else 422.
pub(super) fn outcome(is_done: bool, body: impl serde::Serialize) -> Response {
    let status = match is_done {
        true => StatusCode::OK,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, Json(body)).into_response()
}

pub(super) async fn no_route(method: Method, uri: Uri) -> Failed {
    let path: String = uri.path().chars().take(100).collect();
    let message = format!(
        "there is no {method} {path} here; embeddings are at POST /v1/embeddings, reranking at POST /v1/rerank, models at GET /v1/models"
    );
    let failed = Failed::from(Error::new(ErrorKind::RouteNotFound, message));
    match Dialect::of_unknown(&path) {
        Some(dialect) => failed.in_words_of(dialect),
        None => failed,
    }
}

pub(super) async fn no_method(method: Method, uri: Uri) -> Failed {
    let path: String = uri.path().chars().take(100).collect();
    Error::new(
        ErrorKind::MethodNotAllowed,
        format!("{path} does not take {method}"),
    )
    .into()
}

/// A panic in a handler: a bug of ours, which still gets an answer.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    Failed::from(Error::new(ErrorKind::Internal, "internal error")).into_response()
}
