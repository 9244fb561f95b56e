//! Gives each request an id, and writes its one log line. Never logs inputs, keys, headers or bodies.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{Extensions, HeaderName, HeaderValue, Method},
    response::Response,
};
use embedgate_plugin_host::Summary;
use embedgate_request::{Error, Step, Timings};
use embedgate_traces::{FinishedRequest, RequestTrace};
use uuid::Uuid;

use super::{Gateway, connection::Peer};
use crate::usage::record::Counts;

/// The header that carries a request's id, in and out.
static HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A request with this header, whatever its value, is told where its time went.
static TIMING: HeaderName = HeaderName::from_static("x-embedgate-timing");
/// Where the time of a request went.
static SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The trace of a request, in the form of W3C.
static TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// Longer ids from clients are replaced.
const MAX_ID: usize = 128;
/// The log has so many bytes of a path at most.
const MAX_PATH: usize = 100;

/// A request's id and the record of its time, for the extractor of contexts.
#[derive(Clone)]
pub(super) struct RequestRecord {
    pub(super) id: Arc<str>,
    pub(super) timings: Arc<Timings>,
}

impl RequestRecord {
    /// The one that [`trace`] began.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self {
            id: "".into(),
            timings: Arc::default(),
        })
    }
}

/// The code of the error that was answered, for the log line.
#[derive(Clone)]
pub(super) struct ErrorCode {
    /// As in the answer.
    pub(super) code: Cow<'static, str>,
    /// As in the metrics, where codes must be few.
    pub(super) label: &'static str,
}

/// The error of a failed request, for the log: the client does not see internal causes.
#[derive(Clone)]
pub(super) struct Cause(pub(super) Error);

/// The caller's name and organization. The extractor of contexts leaves them here for the log, the metrics and
/// observers.
#[derive(Clone, Default)]
pub(super) struct Caller(Arc<OnceLock<(Arc<str>, Option<String>)>>);

impl Caller {
    /// Says who it is, by name and organization. Said once: there is one extractor.
    pub(super) fn set(&self, caller: (Arc<str>, Option<String>)) {
        drop(self.0.set(caller));
    }
}

/// The counts of what a handler did, for the log line.
#[derive(Clone)]
pub(super) struct RequestStats {
    pub(super) model: String,
    pub(super) n_inputs: usize,
    pub(super) n_tokens: usize,
    pub(super) n_cached: usize,
    /// Inputs that were cut.
    pub(super) n_truncated: usize,
}

pub(super) async fn trace(
    gateway: &Gateway,
    mut request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let path = request.uri().path();
    let path = path[..path.floor_char_boundary(MAX_PATH)].to_owned();
    let place = match is_probe(&path) {
        true => None,
        false => gateway.traces.begin(request.headers()),
    };
    let is_traced = place.as_ref().is_some_and(RequestTrace::is_sampled);
    let record = RequestRecord {
        id: Arc::clone(&id),
        timings: match is_traced {
            true => Arc::new(Timings::traced()),
            false => Arc::default(),
        },
    };
    let timings = Arc::clone(&record.timings);
    request.extensions_mut().insert(record);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let trace_id = place.as_ref().map(RequestTrace::trace_id);
    let peer = request.extensions().get::<Peer>();
    let client = peer.and_then(|peer| peer.address);
    let line = Line {
        gateway,
        id: &id,
        trace_id: trace_id.as_deref(),
        client,
        place: place.as_ref(),
        method: method.as_str(),
        path: &path,
        route,
        started,
        timings: &timings,
        asks_for_timing: request.headers().contains_key(&TIMING),
    };
    let has_names =
        is_traced || !gateway.authenticator.is_open() || gateway.plugins.has_observers();
    let caller = has_names.then(Caller::default);
    if let Some(caller) = &caller {
        request.extensions_mut().insert(caller.clone());
    }
    let left = EndIfDropped(&line, caller.as_ref());
    let mut response = answer(request).await;
    std::mem::forget(left);
    let headers = line.headers(&response);
    line.note(&response, &caller.unwrap_or_default());
    for (name, value) in headers.into_iter().flatten() {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Requests of machines that ask how things are: many, and of no interest.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/health" | "/metrics")
}

/// The facts of a request for the log and the trace, whatever becomes of it.
struct Line<'a> {
    gateway: &'a Gateway,
    id: &'a Arc<str>,
    trace_id: Option<&'a str>,
    client: Option<IpAddr>,
    place: Option<&'a RequestTrace>,
    method: &'a str,
    path: &'a str,
    route: &'a str,
    started: Instant,
    timings: &'a Timings,
    asks_for_timing: bool,
}

/// The mean time of an input in each step, in milliseconds: tokenizing, queue, batch.
fn steps(timings: &Timings) -> [f64; 3] {
    [Step::Tokenize, Step::Queue, Step::Compute].map(|step| timings.mean(step).as_secs_f64() * 1e3)
}

/// Writes the log line of a request whose client left before the answer: then the request's future is dropped.
struct EndIfDropped<'a>(&'a Line<'a>, Option<&'a Caller>);

impl Drop for EndIfDropped<'_> {
    fn drop(&mut self) {
        let Line {
            id,
            trace_id,
            client,
            method,
            path,
            ..
        } = self.0;
        let id = &***id;
        let client = client.map(tracing::field::display);
        let ms = self.0.ms();
        let finished = FinishedRequest {
            error: "not_answered",
            ..self.0.finished()
        };
        self.0.end_trace_of(finished);
        if self.0.method == Method::POST.as_str() {
            let caller = self.1.and_then(|caller| caller.0.get());
            let counts = Counts {
                requests: 1,
                refused: 1,
                ..Counts::default()
            };
            let caller = caller.map_or("", |(name, _)| name);
            self.0.gateway.usage.count(caller, "", counts);
        }
        tracing::info!(
            id,
            trace_id,
            client,
            ms,
            error.code = "not_answered",
            "{method} {path} not answered: the connection ended after {ms:.1} ms"
        );
    }
}

impl Line<'_> {
    /// The headers of the answer: the request's id, and where it is asked for or traced, its times and its trace.
    fn headers(&self, response: &Response) -> [Option<(&'static HeaderName, HeaderValue)>; 3] {
        let id = HeaderValue::from_str(self.id).ok();
        let stats = response.extensions().get::<RequestStats>();
        let timing = stats.filter(|_| self.asks_for_timing);
        let timing = timing.and_then(|stats| self.timing(stats));
        let trace = self.place.and_then(RequestTrace::response_header);
        let trace = trace.and_then(|value| HeaderValue::from_str(&value).ok());
        [
            id.map(|value| (&HEADER, value)),
            timing.map(|value| (&SERVER_TIMING, value)),
            trace.map(|value| (&TRACE_RESPONSE, value)),
        ]
    }

    /// Notes an answered request wherever somebody looks: metrics, log, plugins, trace, usage.
    fn note(&self, response: &Response, caller: &Caller) {
        let Gateway {
            metrics, plugins, ..
        } = self.gateway;
        let trace = self.trace_id.filter(|_| self.is_traced());
        let (status, time) = (response.status().as_u16(), self.started.elapsed());
        metrics.request(self.route, status, time, trace);
        let extensions = response.extensions();
        if let Some(ErrorCode { label, .. }) = extensions.get() {
            metrics.refused(label);
        }
        let stats = extensions.get::<RequestStats>();
        if let Some(stats) = stats {
            metrics.truncated_inputs(stats.n_truncated);
        }
        let name = caller.0.get().map(|(name, _)| name);
        if let Some(name) = name {
            metrics.caller(name, stats.map_or(0, |stats| stats.n_tokens));
        }
        let name = name.map_or("", |name| name);
        self.write(response, name);
        if self.gateway.slow.is_some_and(|slow| time > slow) {
            self.write_slow(stats);
        }
        if plugins.has_observers() {
            plugins.observe(self.summary(response, caller));
        }
        self.end_trace(response, name);
        if self.method == Method::POST.as_str() {
            self.count(response, name);
        }
    }

    fn is_traced(&self) -> bool {
        self.place.is_some_and(RequestTrace::is_sampled)
    }

    fn ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1e3
    }

    /// The header that tells a client where the time went, in milliseconds; the steps are means of the inputs that were computed.
    ///
    /// Source: W3C, "Server Timing".
    fn timing(&self, stats: &RequestStats) -> Option<HeaderValue> {
        let [tokenize, queue, compute] = steps(self.timings);
        let (n_cached, n_inputs, total) = (stats.n_cached, stats.n_inputs, self.ms());
        let text = format!(
            "cache;desc=\"{n_cached} of {n_inputs}\", tokenize;dur={tokenize:.2}, queue;dur={queue:.2}, compute;dur={compute:.2}, \
             total;dur={total:.2}"
        );
        HeaderValue::from_str(&text).ok()
    }

    /// Writes that a request was slow, and where its time went.
    fn write_slow(&self, stats: Option<&RequestStats>) {
        let Line {
            id,
            trace_id,
            client,
            method,
            path,
            ..
        } = self;
        let (id, ms) = (&***id, self.ms());
        let client = client.map(tracing::field::display);
        // Steps of requests that failed tell most.
        let took = match self.timings.n_inputs() {
            0 => String::new(),
            _ => {
                let [tokenize, queue, compute] = steps(self.timings);
                format!(
                    "; an input that was computed took {tokenize:.1} ms to become tokens, {queue:.1} ms in the queue, {compute:.1} ms in \
                     its batch"
                )
            }
        };
        let of = stats.map_or(String::new(), |stats| {
            let (n_inputs, n_tokens) = (stats.n_inputs, stats.n_tokens);
            format!(" for {n_inputs} inputs of {n_tokens} tokens")
        });
        let [tokenize_ms, queue_ms, compute_ms] = steps(self.timings);
        tracing::warn!(
            id,
            trace_id,
            client,
            ms,
            model.name = stats.map(|stats| &*stats.model),
            tokenize_ms,
            queue_ms,
            compute_ms,
            "{method} {path} was slow: {ms:.0} ms{of}{took}"
        );
    }

    /// Counts what the caller used.
    fn count(&self, response: &Response, caller: &str) {
        let extensions = response.extensions();
        let stats = extensions.get::<RequestStats>();
        let of = |n: fn(&RequestStats) -> usize| stats.map_or(0, n) as u64;
        let counts = Counts {
            requests: 1,
            refused: extensions.get::<ErrorCode>().map_or(0, |_| 1),
            inputs: of(|stats| stats.n_inputs),
            cached: of(|stats| stats.n_cached),
            tokens: of(|stats| stats.n_tokens),
            truncated: of(|stats| stats.n_truncated),
        };
        let model = stats.map_or("", |stats| &stats.model);
        self.gateway.usage.count(caller, model, counts);
    }

    /// Ends the request's trace with its answer.
    fn end_trace(&self, response: &Response, caller: &str) {
        let extensions = response.extensions();
        let stats = extensions.get::<RequestStats>();
        let code = extensions.get::<ErrorCode>();
        self.end_trace_of(FinishedRequest {
            status: response.status().as_u16(),
            error: code.map_or("", |error| &error.code),
            caller,
            model: stats.map_or("", |stats| &stats.model),
            n_inputs: stats.map_or(0, |stats| stats.n_inputs),
            n_tokens: stats.map_or(0, |stats| stats.n_tokens),
            n_cached: stats.map_or(0, |stats| stats.n_cached),
            ..self.finished()
        });
    }

    fn end_trace_of(&self, request: FinishedRequest<'_>) {
        if let Some(place) = self.place {
            self.gateway.traces.end(place, request, self.timings);
        }
    }

    fn finished(&self) -> FinishedRequest<'_> {
        FinishedRequest {
            id: self.id,
            method: self.method,
            path: self.path,
            route: self.route,
            ..FinishedRequest::default()
        }
    }

    /// Summarizes the request and its answer for observers.
    fn summary(&self, response: &Response, caller: &Caller) -> Summary {
        let extensions = response.extensions();
        let stats = extensions.get::<RequestStats>().cloned();
        let (subject, tenant) = caller.0.get().cloned().unzip();
        let code = extensions.get::<ErrorCode>();
        Summary {
            id: Arc::clone(self.id),
            path: self.path.into(),
            status: response.status().as_u16(),
            subject,
            tenant: tenant.flatten(),
            n_inputs: stats.as_ref().map_or(0, |stats| stats.n_inputs),
            n_tokens: stats.as_ref().map_or(0, |stats| stats.n_tokens),
            n_cached: stats.as_ref().map_or(0, |stats| stats.n_cached),
            model: stats.map(|stats| stats.model).unwrap_or_default(),
            total_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
            error_code: code.map(|ErrorCode { code, .. }| code.clone().into_owned()),
        }
    }

    /// `caller` is empty where nobody is known by name.
    fn write(&self, response: &Response, caller: &str) {
        let Line {
            id,
            trace_id,
            client,
            method,
            path,
            ..
        } = self;
        let id = &***id;
        let client = client.map(tracing::field::display);
        let (status, ms) = (response.status().as_u16(), self.ms());
        let by = match caller {
            "" => String::new(),
            caller => format!(" by {caller}"),
        };
        let extensions = response.extensions();
        if let Some(Cause(error)) = extensions.get() {
            log_cause(id, error, status);
        }
        if let Some(stats) = extensions.get::<RequestStats>() {
            let RequestStats {
                model,
                n_inputs,
                n_tokens,
                n_cached,
                n_truncated,
                ..
            } = stats;
            tracing::info!(
                id,
                trace_id,
                client,
                status,
                ms,
                model.name = model,
                n_inputs,
                n_tokens,
                n_cached,
                n_truncated,
                caller,
                "{method} {path} {status} in {ms:.1} ms: {n_inputs} inputs, {n_tokens} tokens, {n_cached} cached, \
                 {n_truncated} cut, model {model}{by}"
            );
        } else if let Some(ErrorCode { code, .. }) = extensions.get() {
            tracing::info!(
                id,
                trace_id,
                client,
                status,
                ms,
                error.code = &**code,
                caller,
                "{method} {path} {status} in {ms:.1} ms: {code}{by}"
            );
        } else if is_probe(path) {
            tracing::debug!(id, status, ms, "{method} {path} {status} in {ms:.1} ms");
        } else {
            tracing::info!(
                id,
                trace_id,
                client,
                status,
                ms,
                caller,
                "{method} {path} {status} in {ms:.1} ms{by}"
            );
        }
    }
}

/// Writes what only the log is told, with all its sources.
fn log_cause(id: &str, error: &Error, status: u16) {
    let Some(source) = &error.source else {
        return;
    };
    let causes: Vec<String> =
        std::iter::successors(Some(&**source as &dyn std::error::Error), |e| e.source())
            .map(ToString::to_string)
            .collect();
    let (causes, message) = (causes.join(": "), error.to_string());
    if status >= 500 {
        tracing::error!(id, status, causes, "request failed: {message}: {causes}");
    } else {
        tracing::debug!(id, status, causes, "request refused: {message}: {causes}");
    }
}

fn request_id(request: &Request) -> Arc<str> {
    let given = request
        .headers()
        .get(&HEADER)
        .and_then(|value| value.to_str().ok());
    let usable = given
        .filter(|id| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()));
    usable.map_or_else(|| new_id(SystemTime::now()).to_string().into(), Into::into)
}

/// In the order of time, where the clock is one that ids can hold: it may stand before 1970.
fn new_id(now: SystemTime) -> Uuid {
    match now.duration_since(UNIX_EPOCH) {
        Ok(_) => Uuid::now_v7(),
        Err(_) => Uuid::new_v4(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_gives_ids_all_the_same() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_ne!(new_id(before), new_id(before));
        assert_eq!(new_id(SystemTime::now()).get_version_num(), 7);
    }
}
