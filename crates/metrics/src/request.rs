//! The metrics of requests, and of the callers that send them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family},
};

use super::{
    Metrics,
    register::{Registered, buckets_of_seconds},
};

/// So many callers are counted by name.
const MOST_CALLERS: usize = 1000;
/// The name of those beyond.
const OTHER_CALLERS: &str = "other";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// The labels of an exemplar: a request of which there is a trace.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TraceLabels {
    trace_id: String,
}

/// Times of requests by route.
type RequestSeconds = Family<
    RouteLabels,
    HistogramWithExemplars<TraceLabels>,
    fn() -> HistogramWithExemplars<TraceLabels>,
>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallerLabels {
    caller: Arc<str>,
}

/// The families, each registered once.
pub(super) struct Families {
    answered: Family<RequestLabels, Counter>,
    request_seconds: RequestSeconds,
    refused: Family<ReasonLabels, Counter>,
    ignored_members: Counter,
    truncated_inputs: Counter,
    /// Callers that are counted by name.
    callers: Mutex<HashSet<Arc<str>>>,
    caller_requests: Family<CallerLabels, Counter>,
    caller_tokens: Family<CallerLabels, Counter>,
}

impl Families {
    /// Registers them.
    pub(super) fn register(all: &mut Registered<'_>) -> Self {
        Self {
            answered: all.add("embedgate_requests", "Answered requests", Family::default()),
            request_seconds: all.add(
                "embedgate_request_duration_seconds",
                "From the request's header to its answer",
                RequestSeconds::new_with_constructor(|| {
                    HistogramWithExemplars::new(buckets_of_seconds())
                }),
            ),
            refused: all.add(
                "embedgate_refused_requests",
                "Requests that got an error, by its code",
                Family::default(),
            ),
            ignored_members: all.add(
                "embedgate_ignored_members",
                "Members of requests' bodies that mean nothing to any server, and were ignored",
                Counter::default(),
            ),
            truncated_inputs: all.add(
                "embedgate_truncated_inputs",
                "Inputs that were cut to what the model or the request takes",
                Counter::default(),
            ),
            callers: Mutex::default(),
            caller_requests: all.add(
                "embedgate_caller_requests",
                "Requests of a caller who is known by name, answered or refused",
                Family::default(),
            ),
            caller_tokens: all.add(
                "embedgate_caller_tokens",
                "Tokens of answered inputs of a caller who is known by name, as billed",
                Family::default(),
            ),
        }
    }
}

impl Metrics {
    /// Counts an answered request. `route` is one of the table's, so that there are few. `trace` is the id of its trace, where
    /// there is one: the exemplar of its time.
    pub fn request(&self, route: &str, status: u16, time: Duration, trace: Option<&str>) {
        let labels = RequestLabels {
            route: route.to_owned(),
            status,
        };
        self.0.requests.answered.get_or_create(&labels).inc();
        let RequestLabels { route, .. } = labels;
        let seconds = self
            .0
            .requests
            .request_seconds
            .get_or_create(&RouteLabels { route });
        let exemplar = trace.map(|id| TraceLabels {
            trace_id: id.to_owned(),
        });
        let now = exemplar.is_some().then(SystemTime::now);
        seconds.observe(time.as_secs_f64(), exemplar, now);
    }

    /// Counts inputs that were cut.
    pub fn truncated_inputs(&self, n: usize) {
        self.0.requests.truncated_inputs.inc_by(n as u64);
    }

    /// Counts a request of a caller by name, and its tokens. Beyond the first thousand callers they are counted together.
    pub fn caller(&self, name: &Arc<str>, n_tokens: usize) {
        let mut callers = self
            .0
            .requests
            .callers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if callers.len() < MOST_CALLERS {
            callers.insert(Arc::clone(name));
        }
        let caller = match callers.contains(name) {
            true => Arc::clone(name),
            false => OTHER_CALLERS.into(),
        };
        drop(callers);
        let labels = CallerLabels { caller };
        self.0.requests.caller_requests.get_or_create(&labels).inc();
        let tokens = self.0.requests.caller_tokens.get_or_create(&labels);
        tokens.inc_by(n_tokens as u64);
    }

    /// Counts members of a body that mean nothing to any server.
    pub fn ignored_members(&self, n: usize) {
        self.0.requests.ignored_members.inc_by(n as u64);
    }

    /// Counts a request that got an error, by its code.
    pub fn refused(&self, reason: &'static str) {
        let labels = ReasonLabels { reason };
        self.0.requests.refused.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_trace_of_its_request_as_an_exemplar() {
        let metrics = Metrics::new();
        metrics.request("/", 200, Duration::from_millis(3), None);
        assert!(!metrics.text().contains("trace_id"));
        metrics.request("/", 200, Duration::from_millis(3), Some("0af7"));
        let text = metrics.text();
        let exemplars: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("trace_id"))
            .collect();
        let [line] = exemplars.as_slice() else {
            panic!("{text}");
        };
        let expected = "embedgate_request_duration_seconds_bucket{le=\"0.004\",route=\"/\"} 2 # {trace_id=\"0af7\"} 0.003 ";
        assert!(line.starts_with(expected), "{line}");
    }

    #[test]
    fn callers_are_counted_by_name_as_long_as_there_are_few() {
        let metrics = Metrics::new();
        for i in 0..MOST_CALLERS + 5 {
            metrics.caller(&format!("caller-{i}").into(), 3);
        }
        metrics.caller(&"caller-0".into(), 4);
        let text = metrics.text();
        for line in [
            "embedgate_caller_tokens_total{caller=\"caller-0\"} 7",
            "embedgate_caller_requests_total{caller=\"caller-0\"} 2",
            "embedgate_caller_requests_total{caller=\"other\"} 5",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
