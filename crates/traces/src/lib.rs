//! Traces of requests: W3C trace context in, sampling, one span a step, and export by OTLP.
//!
//! A request is traced after its end: [`Traces::begin`] gives it ids, the steps note themselves in its
//! [`Timings`], and [`Traces::end`] makes spans of them. Nothing of a request waits for the collector, and nothing that the
//! collector does is an error of a request: spans that find no room in the queue are dropped and counted.

mod collector;
mod queue;
mod spans;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use embedgate_config::TelemetryConfig;
use embedgate_metrics::Metrics;
use embedgate_request::Timings;
use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceState},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample},
};

use self::queue::Queue;
pub use self::spans::FinishedRequest;

/// A longer `tracestate` is left out, as W3C allows.
const MOST_STATE: usize = 512;
/// At the end of the process, the collector has this time for what waits.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The traces of all requests. Without a collector, requests are not traced; a caller's trace id is known all the same.
pub struct Traces {
    propagator: TraceContextPropagator,
    exporting: Option<Exporting>,
}

struct Exporting {
    sampler: Sampler,
    follows_parent: bool,
    ids: RandomIdGenerator,
    queue: Arc<Queue>,
    metrics: Metrics,
}

/// A request's place in its trace.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    context: SpanContext,
    /// The span of the caller; not valid where it sent none.
    parent: SpanContext,
    began: SystemTime,
    started: Instant,
}

impl RequestTrace {
    /// The id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.context.trace_id().to_string()
    }

    /// Returns true where the request's spans are exported.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.context.is_sampled()
    }

    /// The header `traceresponse`: the request's own span, for the caller's tools; none where it has none.
    ///
    /// Source: W3C, "Trace Context Level 2", draft of 2021.
    #[must_use]
    pub fn response_header(&self) -> Option<String> {
        if !self.context.is_valid() {
            return None;
        }
        let (trace, span) = (self.context.trace_id(), self.context.span_id());
        let flags = self.context.trace_flags().to_u8();
        Some(format!("00-{trace}-{span}-{flags:02x}"))
    }
}

impl Traces {
    /// Starts the export, where the configuration names a collector.
    ///
    /// # Errors
    /// When the collector's address cannot be used, or the system gives no thread. A collector that does not answer is none.
    pub fn start(config: &TelemetryConfig, metrics: &Metrics) -> anyhow::Result<Self> {
        let exporting = match config.target() {
            None => None,
            Some(target) => {
                let queue = Arc::new(Queue::new(config.max_queue));
                collector::start(config, &target, Arc::clone(&queue), metrics.clone())
                    .with_context(|| format!("traces cannot be sent to {target}"))?;
                Some(Exporting {
                    sampler: Sampler::TraceIdRatioBased(config.sample),
                    follows_parent: config.follow_parent,
                    ids: RandomIdGenerator::default(),
                    queue,
                    metrics: metrics.clone(),
                })
            }
        };
        Ok(Self {
            propagator: TraceContextPropagator::new(),
            exporting,
        })
    }

    /// Gives a request its place: in the trace of its caller, or in a new one. None where there is neither.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Option<RequestTrace> {
        let caller = headers.contains_key("traceparent").then(|| {
            let headers = HeaderExtractor(headers);
            self.propagator
                .extract_with_context(&Context::new(), &headers)
        });
        let parent = caller
            .map(|caller| caller.span().span_context().clone())
            .filter(SpanContext::is_valid);
        let Some(exporting) = &self.exporting else {
            // Its trace id is for the log alone.
            let parent = parent?;
            let context = SpanContext::new(
                parent.trace_id(),
                SpanId::INVALID,
                TraceFlags::NOT_SAMPLED,
                false,
                TraceState::NONE,
            );
            return Some(RequestTrace::of(context, parent));
        };
        let trace_id = match &parent {
            Some(parent) => parent.trace_id(),
            None => exporting.ids.new_trace_id(),
        };
        let is_sampled = match &parent {
            Some(parent) if exporting.follows_parent => parent.is_sampled(),
            _ => {
                let asked = exporting.sampler.should_sample(
                    None,
                    trace_id,
                    "",
                    &SpanKind::Server,
                    &[],
                    &[],
                );
                asked.decision == SamplingDecision::RecordAndSample
            }
        };
        // What a caller may say of its trace is bounded: it is kept until the collector has it.
        let states = headers.get_all("tracestate").into_iter();
        let is_short = states.map(HeaderValue::len).sum::<usize>() <= MOST_STATE;
        let state = parent.as_ref().filter(|_| is_short);
        let state = state.map(|parent| parent.trace_state().clone());
        let context = SpanContext::new(
            trace_id,
            exporting.ids.new_span_id(),
            TraceFlags::default().with_sampled(is_sampled),
            false,
            state.unwrap_or_default(),
        );
        let parent = parent.unwrap_or(SpanContext::NONE);
        Some(RequestTrace::of(context, parent))
    }

    /// Makes spans of a request that has ended, where it is sampled, and lets them go on their way.
    pub fn end(&self, trace: &RequestTrace, request: FinishedRequest<'_>, timings: &Timings) {
        let Some(exporting) = self.exporting.as_ref().filter(|_| trace.is_sampled()) else {
            return;
        };
        let spans = spans::of(trace, request, timings, &exporting.ids);
        let n = spans.len();
        if !exporting.queue.push(spans) {
            exporting.metrics.spans("dropped", n);
        }
    }

    /// Ends the export, once the collector has what waits, or after a while.
    pub async fn stop(&self) {
        let Some(exporting) = &self.exporting else {
            return;
        };
        let ended = exporting.queue.close();
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("the last spans are lost: the collector of traces takes too long");
        }
    }
}

impl RequestTrace {
    fn of(context: SpanContext, parent: SpanContext) -> Self {
        Self {
            context,
            parent,
            began: SystemTime::now(),
            started: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceId;

    use super::*;

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn traces(keys: &TelemetryConfig) -> Traces {
        let config = TelemetryConfig {
            endpoint: Some("http://127.0.0.1:9".into()),
            ..keys.clone()
        };
        Traces::start(&config, &Metrics::new()).unwrap()
    }

    fn headers(traceparent: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", traceparent.parse().unwrap());
        headers
    }

    #[test]
    fn a_request_joins_the_trace_of_its_caller_and_follows_its_decision() {
        let traces = traces(&TelemetryConfig::default());
        for (traceparent, is_sampled) in [(SAMPLED, true), (NOT_SAMPLED, false)] {
            let trace = traces.begin(&headers(traceparent)).unwrap();
            assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(trace.is_sampled(), is_sampled);
            let own = trace.response_header().unwrap();
            assert!(own.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
            assert!(!own.contains("b7ad6b7169203331"), "{own}");
        }
        // Without a caller's trace, each request has its own.
        let none = HeaderMap::new();
        let [one, other] = [&none, &none].map(|headers| traces.begin(headers).unwrap().trace_id());
        assert_ne!(one, other);
        // What is no traceparent counts as none.
        let trace = traces.begin(&headers("nonsense")).unwrap();
        assert!(trace.is_sampled() && trace.context.trace_id() != TraceId::INVALID);
    }

    #[test]
    fn the_share_counts_where_no_caller_decides() {
        let none = TelemetryConfig {
            sample: 0.0,
            ..TelemetryConfig::default()
        };
        assert!(!traces(&none).begin(&HeaderMap::new()).unwrap().is_sampled());
        assert!(traces(&none).begin(&headers(SAMPLED)).unwrap().is_sampled());
        let own = TelemetryConfig {
            follow_parent: false,
            ..none
        };
        assert!(!traces(&own).begin(&headers(SAMPLED)).unwrap().is_sampled());
        let half = traces(&TelemetryConfig {
            sample: 0.5,
            ..TelemetryConfig::default()
        });
        let is_sampled = |_: &usize| half.begin(&HeaderMap::new()).unwrap().is_sampled();
        let n = (0..2000).filter(is_sampled).count();
        assert!((800..1200).contains(&n), "{n}");
    }

    #[test]
    fn without_a_collector_a_callers_trace_id_is_known_and_nothing_is_traced() {
        let traces = Traces::start(&TelemetryConfig::default(), &Metrics::new()).unwrap();
        assert!(traces.begin(&HeaderMap::new()).is_none());
        let trace = traces.begin(&headers(SAMPLED)).unwrap();
        assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert!(!trace.is_sampled());
        assert_eq!(trace.response_header(), None);
    }
}
