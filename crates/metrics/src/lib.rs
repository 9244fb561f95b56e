//! Counters and timers for Prometheus. Only this file contains the names of metrics and labels.

mod plugin;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use embedgate_core::BackendInfo;
use embedgate_request::Lane;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

pub use self::plugin::PluginMetrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BackendLabels {
    model: String,
    backend: &'static str,
    device: String,
    precision: String,
}

impl BackendLabels {
    fn new(model: &str, info: &BackendInfo) -> Self {
        Self {
            model: model.to_owned(),
            backend: info.backend,
            device: info.device.clone(),
            precision: info.precision.to_string(),
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LaneLabels {
    model: String,
    lane: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    model: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallerLabels {
    caller: Arc<str>,
}

/// So many callers are counted by name.
const MOST_CALLERS: usize = 1000;
/// The name of those beyond.
const OTHER_CALLERS: &str = "other";

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// 1 ms to 2 minutes, for whole requests and the wait in the queue.
fn request_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 20))
}

/// 1 to 32768.
fn counts() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 16))
}

/// Every metric of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Seconds<RouteLabels>,
    refused: Family<ReasonLabels, Counter>,
    ignored_members: Counter,
    truncated_inputs: Counter,
    /// Callers that are counted by name.
    callers: Mutex<HashSet<Arc<str>>>,
    caller_requests: Family<CallerLabels, Counter>,
    caller_tokens: Family<CallerLabels, Counter>,
    inputs: Family<ResultLabels, Counter>,
    tokens: Family<ModelLabels, Counter>,
    queue_inputs: Family<LaneLabels, Gauge>,
    queue_seconds: Seconds<LaneLabels>,
    batch_sequences: Seconds<ModelLabels>,
    batch_tokens: Seconds<ModelLabels>,
    batch_seconds: Seconds<ModelLabels>,
    drain_rate: Family<ModelLabels, Gauge<f64, AtomicU64>>,
    models: Family<BackendLabels, Gauge>,
    ready: Family<ModelLabels, Gauge>,
    restarts: Family<ModelLabels, Counter>,
    cache_entries: Gauge,
    cache_bytes: Gauge,
    cache_evictions: Family<CauseLabels, Counter>,
    file_commits: Counter,
    file_used: Gauge,
    file_bytes: Gauge,
    connections: Gauge,
    resident_bytes: Gauge,
    plugins: plugin::Families,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers every metric.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let mut all = Registered(&mut registry);
        let seconds = || Family::new_with_constructor(request_seconds as fn() -> Histogram);
        let lane_seconds = || Family::new_with_constructor(request_seconds as fn() -> Histogram);
        let model_seconds = || Family::new_with_constructor(request_seconds as fn() -> Histogram);
        let model_counts = || Family::new_with_constructor(counts as fn() -> Histogram);
        let inner = Inner {
            requests: all.add("embedgate_requests", "Answered requests", Family::default()),
            request_seconds: all.add(
                "embedgate_request_duration_seconds",
                "From the request's header to its answer",
                seconds(),
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
            inputs: all.add(
                "embedgate_inputs",
                "Inputs by where their vectors came from: hit (memory), file, coalesced (computed for another), miss",
                Family::default(),
            ),
            tokens: all.add(
                "embedgate_tokens",
                "Tokens of answered inputs, as billed",
                Family::default(),
            ),
            queue_inputs: all.add(
                "embedgate_queue_inputs",
                "Inputs that wait for the backend",
                Family::default(),
            ),
            queue_seconds: all.add(
                "embedgate_queue_duration_seconds",
                "From the tokens of an input to its batch",
                lane_seconds(),
            ),
            batch_sequences: all.add(
                "embedgate_batch_sequences",
                "Sequences in a batch",
                model_counts(),
            ),
            batch_tokens: all.add(
                "embedgate_batch_tokens",
                "Tokens in a batch, padding not counted",
                model_counts(),
            ),
            batch_seconds: all.add(
                "embedgate_batch_duration_seconds",
                "The backend's time for a batch",
                model_seconds(),
            ),
            drain_rate: all.add(
                "embedgate_drain_rate_tokens_per_second",
                "Tokens a second that the backend does while it works, lately",
                Family::default(),
            ),
            models: all.add(
                "embedgate_model_info",
                "1 for each loaded model, with what it runs on",
                Family::default(),
            ),
            ready: all.add(
                "embedgate_model_ready",
                "Whether the model serves: 1 or 0",
                Family::default(),
            ),
            restarts: all.add(
                "embedgate_backend_restarts",
                "Times that a backend was loaded again after a fault",
                Family::default(),
            ),
            cache_entries: all.add(
                "embedgate_cache_entries",
                "Results in the memory cache",
                Gauge::default(),
            ),
            cache_bytes: all.add(
                "embedgate_cache_bytes",
                "Memory that results in the cache take",
                Gauge::default(),
            ),
            cache_evictions: all.add(
                "embedgate_cache_evictions",
                "Results that left the memory cache, by cause: size or expired",
                Family::default(),
            ),
            file_commits: all.add(
                "embedgate_cache_file_commits",
                "Times that results were written to the cache's file",
                Counter::default(),
            ),
            file_used: all.add(
                "embedgate_cache_file_used",
                "1 where the cache's file is in use; 0 where it failed, another process has it, or none is configured",
                Gauge::default(),
            ),
            file_bytes: all.add(
                "embedgate_cache_file_bytes",
                "Length of the cache's file in bytes",
                Gauge::default(),
            ),
            connections: all.add(
                "embedgate_connections",
                "Open connections",
                Gauge::default(),
            ),
            resident_bytes: all.add(
                "process_resident_memory_bytes",
                "Resident memory of the process",
                Gauge::default(),
            ),
            plugins: plugin::Families::register(&mut all),
            registry: Registry::default(),
        };
        Self(Arc::new(Inner { registry, ..inner }))
    }

    /// Notes what a loaded model runs on.
    pub fn runs_on(&self, name: &str, info: &BackendInfo) {
        let labels = BackendLabels::new(name, info);
        self.0.models.get_or_create(&labels).set(1);
    }

    /// Notes that a model has taken the place of one of the same name that ran on something else, perhaps.
    pub fn exchanged(&self, name: &str, before: &BackendInfo, now: &BackendInfo) {
        let (before, now) = (
            BackendLabels::new(name, before),
            BackendLabels::new(name, now),
        );
        if before != now {
            self.0.models.remove(&before);
        }
    }

    /// Leaves out the state of a model that is not in memory any more. What was counted of it stays.
    pub fn forget_model(&self, name: &str, info: &BackendInfo) {
        let model = ModelLabels {
            model: name.to_owned(),
        };
        self.0.models.remove(&BackendLabels::new(name, info));
        self.0.ready.remove(&model);
        self.0.drain_rate.remove(&model);
        for lane in Lane::ALL {
            self.0.queue_inputs.remove(&LaneLabels {
                model: name.to_owned(),
                lane: lane.name(),
            });
        }
    }

    /// The metrics of one model.
    #[must_use]
    pub fn model(&self, name: &str) -> ModelMetrics {
        let Inner {
            inputs,
            queue_inputs,
            queue_seconds,
            ..
        } = &*self.0;
        let model = || ModelLabels {
            model: name.to_owned(),
        };
        let result = |result| {
            inputs.get_or_create_owned(&ResultLabels {
                model: name.to_owned(),
                result,
            })
        };
        let lane = |lane: Lane| LaneLabels {
            model: name.to_owned(),
            lane: lane.name(),
        };
        ModelMetrics {
            hits: result("hit"),
            from_file: result("file"),
            coalesced: result("coalesced"),
            misses: result("miss"),
            tokens: self.0.tokens.get_or_create_owned(&model()),
            queue_inputs: Lane::ALL.map(|l| queue_inputs.get_or_create_owned(&lane(l))),
            queue_seconds: Lane::ALL.map(|l| queue_seconds.get_or_create_owned(&lane(l))),
            batch_sequences: self.0.batch_sequences.get_or_create_owned(&model()),
            batch_tokens: self.0.batch_tokens.get_or_create_owned(&model()),
            batch_seconds: self.0.batch_seconds.get_or_create_owned(&model()),
            drain_rate: self.0.drain_rate.get_or_create_owned(&model()),
            ready: self.0.ready.get_or_create_owned(&model()),
            restarts: self.0.restarts.get_or_create_owned(&model()),
        }
    }

    /// The metrics of one plugin.
    #[must_use]
    pub fn plugin(&self, name: &str) -> PluginMetrics {
        self.0.plugins.plugin(name)
    }

    /// Counts an answered request. `route` is one of the table's, so that there are few.
    pub fn request(&self, route: &str, status: u16, time: Duration) {
        let labels = RequestLabels {
            route: route.to_owned(),
            status,
        };
        self.0.requests.get_or_create(&labels).inc();
        let RequestLabels { route, .. } = labels;
        let seconds = self.0.request_seconds.get_or_create(&RouteLabels { route });
        seconds.observe(time.as_secs_f64());
    }

    /// Counts inputs that were cut.
    pub fn truncated_inputs(&self, n: usize) {
        self.0.truncated_inputs.inc_by(n as u64);
    }

    /// Counts a request of a caller by name, and its tokens. Beyond the first thousand callers they are counted together.
    pub fn caller(&self, name: &Arc<str>, n_tokens: usize) {
        let mut callers = self
            .0
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
        self.0.caller_requests.get_or_create(&labels).inc();
        let tokens = self.0.caller_tokens.get_or_create(&labels);
        tokens.inc_by(n_tokens as u64);
    }

    /// Counts members of a body that mean nothing to any server.
    pub fn ignored_members(&self, n: usize) {
        self.0.ignored_members.inc_by(n as u64);
    }

    /// Counts a request that got an error, by its code.
    pub fn refused(&self, reason: &'static str) {
        let labels = ReasonLabels { reason };
        self.0.refused.get_or_create(&labels).inc();
    }

    /// Counts a result that left the cache.
    pub fn evicted(&self, cause: &'static str) {
        let labels = CauseLabels { cause };
        self.0.cache_evictions.get_or_create(&labels).inc();
    }

    /// Says whether the cache's file is in use.
    pub fn file_is_used(&self, is_used: bool) {
        self.0.file_used.set(is_used.into());
    }

    /// Says how long the cache's file is.
    pub fn file_bytes(&self, bytes: u64) {
        self.0.file_bytes.set(bytes.try_into().unwrap_or(i64::MAX));
    }

    /// Counts a commit of the cache's file.
    pub fn file_commit(&self) {
        self.0.file_commits.inc();
    }

    /// Open connections, to count up and down.
    #[must_use]
    pub fn connections(&self) -> &Gauge {
        &self.0.connections
    }

    /// Notes what the cache holds now.
    pub fn cache(&self, entries: u64, bytes: u64) {
        self.0.cache_entries.set(entries.cast_signed());
        self.0.cache_bytes.set(bytes.cast_signed());
    }

    /// Every metric in the text format of `OpenMetrics` 1.0, which Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        self.0
            .resident_bytes
            .set(resident_bytes().unwrap_or(0).cast_signed());
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("writing into a string always succeeds");
        text
    }
}

/// The text format 0.0.4 of Prometheus, made of that of `OpenMetrics` 1.0: counters are called as their samples are, and what only
/// the newer one has is left out.
#[must_use]
pub fn older_text(open_metrics: &str) -> String {
    let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
    let counters = open_metrics.lines().filter(|line| is_counter(line));
    let counters: HashSet<&str> = counters.filter_map(|line| line.split(' ').nth(2)).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let suffix = if counters.contains(name) {
                    "_total"
                } else {
                    ""
                };
                text.push_str(&format!("# {kind} {name}{suffix} {rest}\n"));
            }
            (Some("#"), ..) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// Registers a metric and hands it on.
struct Registered<'a>(&'a mut Registry);

impl Registered<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

/// The metrics of one model, looked up once.
#[derive(Clone, Debug)]
pub struct ModelMetrics {
    /// Inputs found in memory.
    pub hits: Counter,
    /// Inputs found in the cache's file.
    pub from_file: Counter,
    /// Inputs that were being computed for somebody else, or twice in one request.
    pub coalesced: Counter,
    /// Inputs that had to be computed.
    pub misses: Counter,
    /// Tokens of answered inputs.
    pub tokens: Counter,
    /// Inputs that wait, by lane.
    pub queue_inputs: [Gauge; 2],
    /// Their wait, by lane.
    pub queue_seconds: [Histogram; 2],
    /// Sequences in a batch.
    pub batch_sequences: Histogram,
    /// Tokens in a batch.
    pub batch_tokens: Histogram,
    /// The backend's time for a batch.
    pub batch_seconds: Histogram,
    /// Tokens a second, lately.
    pub drain_rate: Gauge<f64, AtomicU64>,
    /// The state of the model: 1 when it serves.
    pub ready: Gauge,
    /// Loads after a fault.
    pub restarts: Counter,
}

/// Linux only; elsewhere there is no such number.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_as_their_samples_and_knows_no_end() {
        let metrics = Metrics::new();
        metrics.request("/", 200, Duration::ZERO);
        let text = older_text(&metrics.text());
        assert!(
            text.contains("# TYPE embedgate_requests_total counter\n"),
            "{text}"
        );
        assert!(text.contains("# HELP embedgate_requests_total "), "{text}");
        assert!(text.contains("\nembedgate_requests_total{"), "{text}");
        assert!(text.contains("# TYPE embedgate_request_duration_seconds histogram\n"));
        assert!(
            !text.contains("# EOF") && !text.contains("# UNIT"),
            "{text}"
        );
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

    #[test]
    fn the_names_are_these() {
        let metrics = Metrics::new();
        // Names without a value are not written.
        drop(metrics.model("m"));
        metrics.request("/", 200, Duration::ZERO);
        let (backend, _) = embedgate_mock::MockBackend::new(8);
        metrics.runs_on("m", embedgate_core::Backend::info(&backend));
        metrics.refused("overloaded");
        metrics.evicted("size");
        let text = metrics.text();
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        insta::assert_snapshot!(names.join("\n"), @r"
        embedgate_requests counter
        embedgate_request_duration_seconds histogram
        embedgate_refused_requests counter
        embedgate_ignored_members counter
        embedgate_truncated_inputs counter
        embedgate_inputs counter
        embedgate_tokens counter
        embedgate_queue_inputs gauge
        embedgate_queue_duration_seconds histogram
        embedgate_batch_sequences histogram
        embedgate_batch_tokens histogram
        embedgate_batch_duration_seconds histogram
        embedgate_drain_rate_tokens_per_second gauge
        embedgate_model_info gauge
        embedgate_model_ready gauge
        embedgate_backend_restarts counter
        embedgate_cache_entries gauge
        embedgate_cache_bytes gauge
        embedgate_cache_evictions counter
        embedgate_cache_file_commits counter
        embedgate_cache_file_used gauge
        embedgate_cache_file_bytes gauge
        embedgate_connections gauge
        process_resident_memory_bytes gauge
        ");
    }

    #[test]
    fn labels_and_values_are_written() {
        let metrics = Metrics::new();
        let model = metrics.model("m\"1");
        model.hits.inc_by(3);
        model.queue_inputs[Lane::Bulk as usize].set(5);
        metrics.request("/v1/embeddings", 200, Duration::from_millis(3));
        metrics.refused("overloaded");
        let text = metrics.text();
        for line in [
            r#"embedgate_inputs_total{model="m\"1",result="hit"} 3"#,
            r#"embedgate_queue_inputs{model="m\"1",lane="bulk"} 5"#,
            r#"embedgate_requests_total{route="/v1/embeddings",status="200"} 1"#,
            r#"embedgate_refused_requests_total{reason="overloaded"} 1"#,
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
