//! The metrics of models: their inputs, queue, batches and state.

use std::sync::atomic::AtomicU64;

use embedgate_core::BackendInfo;
use embedgate_request::Lane;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use super::{
    Metrics,
    register::{Histograms, Registered, counts, seconds},
};

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

/// The families, each registered once.
pub(super) struct Families {
    inputs: Family<ResultLabels, Counter>,
    tokens: Family<ModelLabels, Counter>,
    queue_inputs: Family<LaneLabels, Gauge>,
    queue_tokens: Family<LaneLabels, Gauge>,
    backlog_seconds: Family<ModelLabels, Gauge<f64, AtomicU64>>,
    queue_seconds: Histograms<LaneLabels>,
    batch_sequences: Histograms<ModelLabels>,
    batch_tokens: Histograms<ModelLabels>,
    batch_seconds: Histograms<ModelLabels>,
    drain_rate: Family<ModelLabels, Gauge<f64, AtomicU64>>,
    runs_on: Family<BackendLabels, Gauge>,
    ready: Family<ModelLabels, Gauge>,
    memory: Family<ModelLabels, Gauge>,
    restarts: Family<ModelLabels, Counter>,
}

impl Families {
    /// Registers them.
    pub(super) fn register(all: &mut Registered<'_>) -> Self {
        Self {
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
            queue_tokens: all.add(
                "embedgate_queue_tokens",
                "Tokens of the inputs that wait or run, estimated until they are counted",
                Family::default(),
            ),
            backlog_seconds: all.add(
                "embedgate_backlog_seconds",
                "Time in which the inputs that wait or run will be done, by the drain rate",
                Family::default(),
            ),
            queue_seconds: all.add(
                "embedgate_queue_duration_seconds",
                "From the tokens of an input to its batch",
                seconds(),
            ),
            batch_sequences: all.add(
                "embedgate_batch_sequences",
                "Sequences in a batch",
                counts(),
            ),
            batch_tokens: all.add(
                "embedgate_batch_tokens",
                "Tokens in a batch, padding not counted",
                counts(),
            ),
            batch_seconds: all.add(
                "embedgate_batch_duration_seconds",
                "The backend's time for a batch",
                seconds(),
            ),
            drain_rate: all.add(
                "embedgate_drain_rate_tokens_per_second",
                "Tokens a second that the backend does while it works, lately",
                Family::default(),
            ),
            runs_on: all.add(
                "embedgate_model_info",
                "1 for each loaded model, with what it runs on",
                Family::default(),
            ),
            ready: all.add(
                "embedgate_model_ready",
                "Whether the model serves: 1 or 0",
                Family::default(),
            ),
            memory: all.add(
                "embedgate_model_memory_bytes",
                "The machine's memory that the model takes with its longest batch, by estimate; 0 for what is on a card",
                Family::default(),
            ),
            restarts: all.add(
                "embedgate_backend_restarts",
                "Times that a backend was loaded again after a fault",
                Family::default(),
            ),
        }
    }
}

impl Metrics {
    /// Notes what a loaded model runs on.
    pub fn runs_on(&self, name: &str, info: &BackendInfo) {
        let labels = BackendLabels::new(name, info);
        self.0.models.runs_on.get_or_create(&labels).set(1);
    }

    /// Notes that a model has taken the place of one of the same name that ran on something else, perhaps.
    pub fn exchanged(&self, name: &str, before: &BackendInfo, now: &BackendInfo) {
        let (before, now) = (
            BackendLabels::new(name, before),
            BackendLabels::new(name, now),
        );
        if before != now {
            self.0.models.runs_on.remove(&before);
        }
    }

    /// Leaves out the state of a model that is not in memory any more. What was counted of it stays.
    pub fn forget_model(&self, name: &str, info: &BackendInfo) {
        let families = &self.0.models;
        let model = ModelLabels {
            model: name.to_owned(),
        };
        families.runs_on.remove(&BackendLabels::new(name, info));
        families.ready.remove(&model);
        families.memory.remove(&model);
        families.drain_rate.remove(&model);
        families.backlog_seconds.remove(&model);
        for lane in Lane::ALL {
            let labels = LaneLabels {
                model: name.to_owned(),
                lane: lane.name(),
            };
            families.queue_inputs.remove(&labels);
            families.queue_tokens.remove(&labels);
        }
    }

    /// The metrics of one model.
    #[must_use]
    pub fn model(&self, name: &str) -> ModelMetrics {
        let families = &self.0.models;
        let Families {
            inputs,
            queue_inputs,
            queue_tokens,
            queue_seconds,
            ..
        } = families;
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
            tokens: families.tokens.get_or_create_owned(&model()),
            queue_inputs: Lane::ALL.map(|l| queue_inputs.get_or_create_owned(&lane(l))),
            queue_tokens: Lane::ALL.map(|l| queue_tokens.get_or_create_owned(&lane(l))),
            backlog_seconds: families.backlog_seconds.get_or_create_owned(&model()),
            queue_seconds: Lane::ALL.map(|l| queue_seconds.get_or_create_owned(&lane(l))),
            batch_sequences: families.batch_sequences.get_or_create_owned(&model()),
            batch_tokens: families.batch_tokens.get_or_create_owned(&model()),
            batch_seconds: families.batch_seconds.get_or_create_owned(&model()),
            drain_rate: families.drain_rate.get_or_create_owned(&model()),
            ready: families.ready.get_or_create_owned(&model()),
            memory: families.memory.get_or_create_owned(&model()),
            restarts: families.restarts.get_or_create_owned(&model()),
        }
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
    /// Tokens of the inputs that wait or run, by lane.
    pub queue_tokens: [Gauge; 2],
    /// The time in which these will be done, in seconds.
    pub backlog_seconds: Gauge<f64, AtomicU64>,
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
    /// The machine's memory that it takes, by estimate.
    pub memory: Gauge,
    /// Loads after a fault.
    pub restarts: Counter,
}
