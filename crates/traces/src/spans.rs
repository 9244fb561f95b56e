//! Makes spans of a request that has ended.

use std::{
    borrow::Cow,
    time::{Instant, SystemTime},
};

use embedgate_request::{BatchRun, Span, Timings};
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use crate::RequestTrace;

/// A request and its answer, as a trace has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FinishedRequest<'a> {
    /// The request's id.
    pub id: &'a str,
    /// Such as `POST`.
    pub method: &'a str,
    /// The path as it came.
    pub path: &'a str,
    /// The route of the table that it met.
    pub route: &'a str,
    /// The answer's status; 0 where the connection ended before there was one.
    pub status: u16,
    /// The code of the error that was answered; empty where there was none.
    pub error: &'a str,
    /// The name of the caller; empty where nobody is known by name.
    pub caller: &'a str,
    /// The model that answered; empty where none did.
    pub model: &'a str,
    /// Its inputs.
    pub n_inputs: usize,
    /// Their tokens.
    pub n_tokens: usize,
    /// Inputs that were cached.
    pub n_cached: usize,
}

/// The span of the request, one a step, and those of batches that no other trace has exported.
pub(crate) fn of(
    trace: &RequestTrace,
    request: FinishedRequest<'_>,
    timings: &Timings,
    ids: &RandomIdGenerator,
) -> Vec<SpanData> {
    let ended = Instant::now();
    let method = method(request.method);
    let mut spans = vec![SpanData {
        parent_span_id: trace.parent.span_id(),
        parent_span_is_remote: trace.parent.is_remote(),
        span_kind: SpanKind::Server,
        attributes: attributes(request),
        status: status(request),
        ..span(
            trace.context.clone(),
            match method {
                OTHER_METHOD => format!("HTTP {}", request.route),
                method => format!("{method} {}", request.route),
            }
            .into(),
            [trace.began, trace.at(ended)],
        )
    }];
    for step in timings.spans() {
        let mut own = trace.step(&step, ids);
        if let Some(batch) = &step.batch {
            let (context, is_new) = context(batch, ids);
            own.links.links.push(Link::with_context(context.clone()));
            if is_new {
                spans.push(trace.batch(batch, context));
            }
        }
        spans.push(own);
    }
    spans
}

impl RequestTrace {
    /// The time of the clock at a moment of this request.
    fn at(&self, moment: Instant) -> SystemTime {
        let since = moment.saturating_duration_since(self.started);
        let before = self.started.saturating_duration_since(moment);
        let time = self.began.checked_add(since);
        time.and_then(|time| time.checked_sub(before))
            .unwrap_or(self.began)
    }

    fn step(&self, step: &Span, ids: &RandomIdGenerator) -> SpanData {
        let context = SpanContext::new(
            self.context.trace_id(),
            ids.new_span_id(),
            self.context.trace_flags(),
            false,
            // Once a trace is enough.
            TraceState::NONE,
        );
        let inputs = (step.n_inputs > 0).then(|| count("embedgate.inputs", step.n_inputs));
        SpanData {
            parent_span_id: self.context.span_id(),
            attributes: inputs.into_iter().collect(),
            ..span(
                context,
                step.name.clone(),
                [self.at(step.started), self.at(step.ended)],
            )
        }
    }

    fn batch(&self, batch: &BatchRun, context: SpanContext) -> SpanData {
        SpanData {
            attributes: vec![
                KeyValue::new("gen_ai.request.model", batch.model.to_string()),
                count("embedgate.sequences", batch.n_sequences),
                count("embedgate.tokens", batch.n_tokens),
            ],
            ..span(
                context,
                "batch".into(),
                [self.at(batch.started), self.at(batch.ended)],
            )
        }
    }
}

/// The place of a batch in its own trace, and whether it was given now.
fn context(batch: &BatchRun, ids: &RandomIdGenerator) -> (SpanContext, bool) {
    let ((trace, span), is_new) = batch.ids(|| {
        let trace = u128::from_be_bytes(ids.new_trace_id().to_bytes());
        (trace, u64::from_be_bytes(ids.new_span_id().to_bytes()))
    });
    let context = SpanContext::new(
        TraceId::from_bytes(trace.to_be_bytes()),
        SpanId::from_bytes(span.to_be_bytes()),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    (context, is_new)
}

fn span(
    span_context: SpanContext,
    name: Cow<'static, str>,
    [start_time, end_time]: [SystemTime; 2],
) -> SpanData {
    SpanData {
        span_context,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name,
        start_time,
        end_time,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("embedgate")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// The word for a method that nobody knows, which may be long.
const OTHER_METHOD: &str = "_OTHER";

fn method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "TRACE" | "CONNECT" => {
            method
        }
        _ => OTHER_METHOD,
    }
}

fn count(name: &'static str, n: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(n).unwrap_or(i64::MAX))
}

/// Source: OpenTelemetry semantic conventions 1.38, "HTTP spans" and "Gen AI"; names of embedgate's own begin with its name.
fn attributes(request: FinishedRequest<'_>) -> Vec<KeyValue> {
    let FinishedRequest {
        id,
        method,
        path,
        route,
        status,
        error,
        caller,
        model,
        n_inputs,
        n_tokens,
        n_cached,
    } = request;
    let mut all = Vec::with_capacity(12);
    let texts = [
        ("http.request.method", self::method(method)),
        ("url.path", path),
        ("http.route", route),
        ("error.type", error),
        ("embedgate.request.id", id),
        ("enduser.id", caller),
        ("gen_ai.request.model", model),
    ];
    let set = texts.into_iter().filter(|(_, text)| !text.is_empty());
    all.extend(set.map(|(name, text)| KeyValue::new(name, text.to_owned())));
    if status > 0 {
        let status = i64::from(status);
        all.push(KeyValue::new("http.response.status_code", status));
    }
    if !model.is_empty() {
        all.extend([
            count("gen_ai.usage.input_tokens", n_tokens),
            count("embedgate.inputs", n_inputs),
            count("embedgate.inputs.cached", n_cached),
        ]);
    }
    all
}

/// A server's span is an error where the server failed: what a client did wrong is none.
fn status(request: FinishedRequest<'_>) -> Status {
    match request.status {
        1..500 => Status::Unset,
        _ => Status::error(request.error.to_owned()),
    }
}
