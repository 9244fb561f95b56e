//! Counters and timers for Prometheus. Only this crate contains the names of metrics and labels.
//!
//! Each subject has a file with its families, its labels and what is noted of it.

mod cache;
mod figures;
mod model;
mod older;
mod plugin;
mod process;
mod register;
mod request;

use std::sync::Arc;

use prometheus_client::{encoding::text::encode, registry::Registry};

use self::register::Registered;
pub use self::{
    figures::{Figures, ModelFigures, Sample, States},
    model::ModelMetrics,
    older::older_text,
    plugin::PluginMetrics,
};

/// Every metric of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: request::Families,
    models: model::Families,
    cache: cache::Families,
    process: process::Families,
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
        // In the order of the text.
        Self(Arc::new(Inner {
            requests: request::Families::register(&mut all),
            models: model::Families::register(&mut all),
            cache: cache::Families::register(&mut all),
            process: process::Families::register(&mut all),
            plugins: plugin::Families::register(&mut all),
            registry,
        }))
    }

    /// Every metric in the text format of `OpenMetrics` 1.0, which Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.process.measure();
        let mut text = String::new();
        encode(&mut text, &self.0.registry).expect("writing into a string always succeeds");
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embedgate_request::Lane;

    use super::*;

    #[test]
    fn the_names_are_these() {
        let metrics = Metrics::new();
        // Names without a value are not written.
        drop(metrics.model("m"));
        metrics.request("/", 200, Duration::ZERO, None);
        let (backend, _) = embedgate_mock::MockBackend::new(8);
        metrics.runs_on("m", embedgate_core::Backend::info(&backend));
        metrics.refused("overloaded");
        metrics.evicted("size");
        metrics.build("1.0.0");
        metrics.spans("exported", 1);
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
        embedgate_queue_tokens gauge
        embedgate_backlog_seconds gauge
        embedgate_queue_duration_seconds histogram
        embedgate_batch_sequences histogram
        embedgate_batch_tokens histogram
        embedgate_batch_duration_seconds histogram
        embedgate_drain_rate_tokens_per_second gauge
        embedgate_model_info gauge
        embedgate_model_ready gauge
        embedgate_model_memory_bytes gauge
        embedgate_backend_restarts counter
        embedgate_cache_entries gauge
        embedgate_cache_bytes gauge
        embedgate_cache_evictions counter
        embedgate_cache_file_commits counter
        embedgate_cache_file_used gauge
        embedgate_cache_file_bytes gauge
        embedgate_build_info gauge
        embedgate_trace_spans counter
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
        metrics.request("/v1/embeddings", 200, Duration::from_millis(3), None);
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
