//! The metrics of plugins: of their calls, and those that they count themselves.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use embedgate_request::Hook;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

use super::{Registered, Seconds};

/// Label sets that one plugin may make.
const MOST_LABEL_SETS: usize = 100;
/// A longer label value is cut.
const MOST_LABEL_BYTES: usize = 128;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HookLabels {
    plugin: String,
    hook: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    plugin: String,
    hook: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DroppedLabels {
    plugin: String,
    what: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LoadLabels {
    plugin: String,
    result: &'static str,
}

type OwnLabels = Vec<(String, String)>;

/// 4 µs to 2 s.
fn call_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_004, 2.0, 20))
}

/// Whatever a plugin observes: 1/1024 to 32768.
fn own_values() -> Histogram {
    Histogram::new(exponential_buckets(1.0 / 1024.0, 4.0, 13))
}

/// The families, each registered once.
pub(super) struct Families {
    calls: Family<HookLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    seconds: Seconds<HookLabels>,
    peak_bytes: Family<HookLabels, Gauge>,
    dropped: Family<DroppedLabels, Counter>,
    loads: Family<LoadLabels, Counter>,
    own_counts: Family<OwnLabels, Counter>,
    own_values: Seconds<OwnLabels>,
}

impl Families {
    pub(super) fn register(all: &mut Registered<'_>) -> Self {
        Self {
            calls: all.add(
                "embedgate_plugin_calls",
                "Calls of plugins, failed ones included",
                Family::default(),
            ),
            errors: all.add(
                "embedgate_plugin_errors",
                "Calls that failed, by kind: timeout, memory, trap, output (of an illegal result), busy",
                Family::default(),
            ),
            seconds: all.add(
                "embedgate_plugin_call_duration_seconds",
                "A call of a plugin, its instance included",
                Family::new_with_constructor(call_seconds as fn() -> Histogram),
            ),
            peak_bytes: all.add(
                "embedgate_plugin_memory_peak_bytes",
                "The most memory that an instance had",
                Family::default(),
            ),
            dropped: all.add(
                "embedgate_plugin_dropped",
                "What plugins sent beyond their bounds: log (lines), metric (values), summary (of requests, to a slow observer)",
                Family::default(),
            ),
            loads: all.add(
                "embedgate_plugin_loads",
                "Loads of plugins, by result: ok or failed",
                Family::default(),
            ),
            own_counts: all.add(
                "embedgate_plugin_custom",
                "What plugins count themselves",
                Family::default(),
            ),
            own_values: all.add(
                "embedgate_plugin_custom_value",
                "What plugins observe themselves",
                Family::new_with_constructor(own_values as fn() -> Histogram),
            ),
        }
    }

    pub(super) fn plugin(&self, name: &str) -> PluginMetrics {
        let plugin = || name.to_owned();
        let dropped = |what| {
            self.dropped.get_or_create_owned(&DroppedLabels {
                plugin: plugin(),
                what,
            })
        };
        let hook = |hook: Hook| {
            let labels = HookLabels {
                plugin: plugin(),
                hook: hook.name(),
            };
            HookMetrics {
                calls: self.calls.get_or_create_owned(&labels),
                seconds: self.seconds.get_or_create_owned(&labels),
                peak_bytes: self.peak_bytes.get_or_create_owned(&labels),
                errors: self.errors.clone(),
                labels,
            }
        };
        let load = |result| {
            self.loads.get_or_create_owned(&LoadLabels {
                plugin: plugin(),
                result,
            })
        };
        PluginMetrics {
            hooks: Hook::ALL.map(hook),
            loads: load("ok"),
            failed_loads: load("failed"),
            log_dropped: dropped("log"),
            summaries_dropped: dropped("summary"),
            custom_dropped: dropped("metric"),
            own_counts: self.own_counts.clone(),
            own_values: self.own_values.clone(),
            label_sets: Arc::default(),
            plugin: plugin(),
        }
    }
}

/// The metrics of one plugin, looked up once.
#[derive(Clone, Debug)]
pub struct PluginMetrics {
    hooks: [HookMetrics; 3],
    /// Loads that worked.
    pub loads: Counter,
    /// Loads that did not.
    pub failed_loads: Counter,
    /// Log lines past the call's budget.
    pub log_dropped: Counter,
    /// Summaries that an observer was too slow for.
    pub summaries_dropped: Counter,
    /// Values under a name that was not granted, or of too many label sets.
    pub custom_dropped: Counter,
    own_counts: Family<OwnLabels, Counter>,
    own_values: Seconds<OwnLabels>,
    label_sets: Arc<Mutex<HashSet<OwnLabels>>>,
    plugin: String,
}

impl PluginMetrics {
    /// The metrics of one of its hooks.
    #[must_use]
    pub fn hook(&self, hook: Hook) -> &HookMetrics {
        &self.hooks[hook as usize]
    }

    /// Adds to a counter of the plugin's own.
    pub fn custom_add(&self, name: &str, labels: Vec<(String, String)>, delta: u64) {
        if let Some(labels) = self.own_labels(name, labels) {
            self.own_counts.get_or_create(&labels).inc_by(delta);
        }
    }

    /// Observes a value of the plugin's own.
    pub fn custom_observe(&self, name: &str, labels: Vec<(String, String)>, value: f64) {
        // One such value would make the sum useless for ever.
        if !value.is_finite() {
            self.custom_dropped.inc();
            return;
        }
        if let Some(labels) = self.own_labels(name, labels) {
            self.own_values.get_or_create(&labels).observe(value);
        }
    }

    /// The whole label set, where it is legal and not one too many.
    fn own_labels(&self, name: &str, labels: Vec<(String, String)>) -> Option<OwnLabels> {
        let mut all = vec![
            ("plugin".to_owned(), self.plugin.clone()),
            ("name".to_owned(), name.to_owned()),
        ];
        for (key, mut value) in labels {
            let is_new = all.iter().all(|(known, _)| *known != key);
            let is_label = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && (1..=32).contains(&key.len())
                && !key.starts_with("__")
                && key != "le";
            if !is_label || !is_new || all.len() > 8 {
                self.custom_dropped.inc();
                return None;
            }
            value.truncate(value.floor_char_boundary(MOST_LABEL_BYTES));
            all.push((key, value));
        }
        let mut sets = self
            .label_sets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !sets.contains(&all) {
            if sets.len() >= MOST_LABEL_SETS {
                self.custom_dropped.inc();
                return None;
            }
            sets.insert(all.clone());
        }
        Some(all)
    }
}

/// The metrics of one hook of a plugin.
#[derive(Clone, Debug)]
pub struct HookMetrics {
    calls: Counter,
    seconds: Histogram,
    peak_bytes: Gauge,
    errors: Family<ErrorLabels, Counter>,
    labels: HookLabels,
}

impl HookMetrics {
    /// Counts a call.
    pub fn call(&self, time: Duration) {
        self.calls.inc();
        self.seconds.observe(time.as_secs_f64());
    }

    /// Notes the most memory that an instance had.
    pub fn peak(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.peak_bytes.inner().fetch_max(bytes, Ordering::Relaxed);
    }

    /// Counts a failed call.
    pub fn error(&self, kind: &'static str) {
        let HookLabels { plugin, hook } = &self.labels;
        let labels = ErrorLabels {
            plugin: plugin.clone(),
            hook,
            kind,
        };
        self.errors.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    #[test]
    fn a_plugin_cannot_make_labels_without_end_or_pose_as_another() {
        let metrics = Metrics::new();
        let plugin = metrics.plugin("p");
        for i in 0..200 {
            plugin.custom_add("n", vec![("user".into(), i.to_string())], 1);
        }
        assert_eq!(plugin.custom_dropped.get(), 100);
        for key in ["plugin", "name", "Le", "", "a\"b", "__x", "le"] {
            plugin.custom_add("n", vec![(key.into(), "v".into())], 1);
        }
        assert_eq!(plugin.custom_dropped.get(), 107);
        let text = metrics.text();
        assert_eq!(text.matches("embedgate_plugin_custom_total{").count(), 100);
    }
}
