//! Gives each request an id, and writes its one log line. Never logs inputs, keys, headers or bodies.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request},
    http::{Extensions, HeaderValue},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use super::State;

/// The header that carries a request's id, in and out.
const HEADER: &str = "x-request-id";
/// Longer ids from clients are replaced.
const MAX_ID: usize = 128;

/// A request's id, for the extractor of contexts.
#[derive(Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The id that [`trace`] gave.
    pub(super) fn of(extensions: &Extensions) -> Arc<str> {
        extensions
            .get::<Self>()
            .map_or_else(|| "".into(), |id| Arc::clone(&id.0))
    }
}

/// The code of the error that was answered, for the log line.
#[derive(Clone, Copy)]
pub(super) struct ErrorCode(pub(super) &'static str);

/// What a handler did, for the log line.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) model: String,
    pub(super) n_inputs: usize,
    pub(super) n_tokens: usize,
    pub(super) n_cached: usize,
}

pub(super) async fn trace(gateway: State, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let method = request.method().clone();
    let path: String = request.uri().path().chars().take(100).collect();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = tracing::info_span!("request", id = %id);
    let left = LogIfDropped {
        span: &span,
        method: method.as_str(),
        path: &path,
        started,
    };
    let mut response = next.run(request).instrument(span.clone()).await;
    std::mem::forget(left);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let status = response.status().as_u16();
    gateway.metrics.request(route, status, started.elapsed());
    if let Some(ErrorCode(code)) = response.extensions().get() {
        gateway.metrics.refused(code);
    }
    let _in_span = span.enter();
    log(&response, method.as_str(), &path, started);
    response
}

/// Writes the log line of a request whose client left before the answer: then the request's future is dropped.
struct LogIfDropped<'a> {
    span: &'a tracing::Span,
    method: &'a str,
    path: &'a str,
    started: Instant,
}

impl Drop for LogIfDropped<'_> {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let (method, path, ms) = (
            self.method,
            self.path,
            self.started.elapsed().as_secs_f64() * 1e3,
        );
        tracing::info!(
            ms,
            error.code = "not_answered",
            "{method} {path} not answered: the connection ended after {ms:.1} ms"
        );
    }
}

fn request_id(request: &Request) -> Arc<str> {
    let given = request
        .headers()
        .get(HEADER)
        .and_then(|value| value.to_str().ok());
    let usable = given
        .filter(|id| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    usable.map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Into::into)
}

fn log(response: &Response, method: &str, path: &str, started: Instant) {
    let status = response.status().as_u16();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let extensions = response.extensions();
    if let Some(work) = extensions.get::<Work>() {
        let Work {
            model,
            n_inputs,
            n_tokens,
            n_cached,
        } = work;
        tracing::info!(
            status,
            ms,
            model.name = model,
            n_inputs,
            n_tokens,
            n_cached,
            "{method} {path} {status} in {ms:.1} ms: {n_inputs} inputs, {n_tokens} tokens, {n_cached} cached, model {model}"
        );
    } else if let Some(ErrorCode(code)) = extensions.get() {
        tracing::info!(
            status,
            ms,
            error.code = code,
            "{method} {path} {status} in {ms:.1} ms: {code}"
        );
    } else if matches!(path, "/livez" | "/readyz" | "/health" | "/metrics") {
        tracing::debug!(status, ms, "{method} {path} {status} in {ms:.1} ms");
    } else {
        tracing::info!(status, ms, "{method} {path} {status} in {ms:.1} ms");
    }
}
