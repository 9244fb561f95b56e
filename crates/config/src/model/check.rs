//! Checks a model's table.

use super::{LoadTime, ModelConfig, RerankWeights};
use crate::{
    Device, DeviceChoice, Period, Problem, ReplicaCount, ServerConfig, problem::Report,
    sha256::is_sha256,
};

/// More inputs than memory could hold.
const MAX_QUEUE: usize = 10_000_000;
/// More copies of a model than a machine has cores.
const MAX_REPLICAS: usize = 1024;

impl ModelConfig {
    /// Reports everything that is wrong with the table of the model `name`.
    pub(crate) fn check(&self, name: &str, server: &ServerConfig, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: String| {
            problems.push(Problem::new(format!("models.{name}.{key}"), message));
        };
        self.check_place(name, &mut problem);
        self.check_counts(server, &mut problem);
        self.check_periods(&mut problem);
        self.check_rerank(&mut problem);
        self.backend.check_type(&mut problem);
        self.check_replicas_of_device(&mut problem);
        self.backend.check_threads(&mut problem);
        self.backend.check_precision(&mut problem);
        self.check_max_memory(&mut problem);
    }

    /// Checks the model's folder, its names, and when it is there.
    fn check_place(&self, name: &str, problem: &mut Report<'_>) {
        if self.path.as_os_str().is_empty() {
            problem("path", "is missing: the folder of the model".into());
        } else if self.source.is_none()
            && let Err(error) = self.path.read_dir()
        {
            problem(
                "path",
                format!(
                    "{} cannot be read as the folder of a model: {error}; `embedgate pull OWNER/NAME --to {}` fetches one",
                    self.path.display(),
                    self.path.display()
                ),
            );
        }
        for text in self.aliases.iter().map(String::as_str).chain([name]) {
            if text.is_empty() || text.chars().any(char::is_control) {
                problem(
                    "aliases",
                    format!(
                        "{text:?} is no name: names are not empty and hold no control characters"
                    ),
                );
            }
        }
        if self.idle.is_some() && self.load == LoadTime::Start {
            problem(
                "idle",
                "is for load = \"on_demand\": what is loaded at the start stays".into(),
            );
        }
        for (file, hash) in &self.sha256 {
            if !is_sha256(hash) {
                problem(
                    &format!("sha256.{file:?}"),
                    "must be 64 hex digits: `sha256sum` prints them".into(),
                );
            }
        }
    }

    fn check_counts(&self, server: &ServerConfig, problem: &mut Report<'_>) {
        for (key, value, least) in [
            ("max_length", self.max_length.unwrap_or(usize::MAX), 2),
            ("max_batch_tokens", self.max_batch_tokens.unwrap_or(1), 1),
            ("replicas", self.replicas.get(), 1),
            ("tokenizer_threads", self.tokenizer_threads, 1),
            ("backend.threads", self.backend.threads.unwrap_or(1), 1),
        ] {
            if value < least {
                problem(key, format!("must be at least {least}, got {value}"));
            }
        }
        let replicas = self.replicas.get();
        if replicas > MAX_REPLICAS {
            problem(
                "replicas",
                format!("must be at most {MAX_REPLICAS}, got {replicas}"),
            );
        }
        if self.queue_capacity > MAX_QUEUE {
            problem(
                "queue_capacity",
                format!("must be at most {MAX_QUEUE}, got {}", self.queue_capacity),
            );
        }
        if self.queue_capacity < server.max_inputs {
            problem(
                "queue_capacity",
                format!(
                    "{} is below server.max_inputs {}: the largest request would never fit",
                    self.queue_capacity, server.max_inputs
                ),
            );
        }
    }

    fn check_periods(&self, problem: &mut Report<'_>) {
        let periods = [
            ("max_batch_time", self.max_batch_time),
            ("bulk_max_wait", self.bulk_max_wait),
            ("max_queue_time", self.max_queue_time),
            ("bulk_max_queue_time", self.bulk_max_queue_time),
            ("idle", self.idle.unwrap_or(Period::seconds(1))),
        ];
        for (key, period) in periods {
            if let Some(message) = period.out_of_range() {
                problem(key, message);
            }
        }
    }

    fn check_rerank(&self, problem: &mut Report<'_>) {
        let RerankWeights {
            dense,
            sparse,
            colbert,
        } = self.rerank;
        let weights = [dense, sparse, colbert];
        if weights.iter().any(|w| !w.is_finite() || *w < 0.0) || weights == [0.0; 3] {
            problem(
                "rerank",
                format!("the weights must be at least 0 and not all 0, got {weights:?}"),
            );
        }
    }

    fn check_replicas_of_device(&self, problem: &mut Report<'_>) {
        if self.backend.device == DeviceChoice::At(Device::WebGpu) && self.replicas.get() > 1 {
            problem(
                "replicas",
                r#"must be 1 with device = "webgpu": ONNX Runtime's plugin runs one batch at a time"#.into(),
            );
        }
        if self.replicas == ReplicaCount::Auto
            && (!self.backend.kind.has_processor() || self.backend.is_on_card())
        {
            problem(
                "replicas",
                r#"must be a number on a card: "auto" counts the processor's threads"#.into(),
            );
        }
    }

    fn check_max_memory(&self, problem: &mut Report<'_>) {
        if let Some(reason) = self.backend.kind.refuses_max_memory()
            && self.max_memory.is_some()
        {
            problem("max_memory", reason.into());
        }
    }
}
