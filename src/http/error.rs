//! Turns errors into answers. The only file that chooses a status code.

use std::any::Any;

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::trace::{Cause, ErrorCode};
use crate::error::{Error, ErrorKind};

/// Retry-After is at most this many seconds: clients wait no longer anyway.
const MAX_RETRY_AFTER: u64 = 60;

/// Longer messages are cut: clients show them to people.
const MAX_MESSAGE: usize = 500;

/// An error in the envelope of `OpenAI`.
pub(super) struct OpenAiError(Error);

impl From<Error> for OpenAiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let (status, kind, default_code) = rendering(error.kind);
        let cause = error.source.is_some().then(|| Cause(error.clone()));
        let code = error.code.or(default_code);
        // What went wrong inside is the log's; where it went wrong (which input) the client may know.
        let message = match error.kind {
            ErrorKind::Internal => format!(
                "{}; the server's log has the cause under this request's id",
                error.message
            ),
            _ => error.message,
        };
        let message = short(message);
        let body = json!({"error": {"message": message, "type": kind, "param": error.param, "code": code}});
        let mut response = (status, Json(body)).into_response();
        response
            .extensions_mut()
            .insert(ErrorCode(code.unwrap_or(kind)));
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
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
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

pub(super) async fn no_route(method: Method, uri: Uri) -> OpenAiError {
    let path: String = uri.path().chars().take(100).collect();
    let message = format!(
        "there is no {method} {path} here; embeddings are at POST /v1/embeddings, models at GET /v1/models"
    );
    Error::new(ErrorKind::RouteNotFound, message).into()
}

pub(super) async fn no_method(method: Method, uri: Uri) -> OpenAiError {
    let path: String = uri.path().chars().take(100).collect();
    Error::new(
        ErrorKind::MethodNotAllowed,
        format!("{path} does not take {method}"),
    )
    .into()
}

/// A panic in a handler: a bug of ours, which still gets an answer.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    OpenAiError(Error::new(ErrorKind::Internal, "internal error")).into_response()
}
