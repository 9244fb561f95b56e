//! The metrics of plugins: of their calls, loads and losses.

mod own;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::Ordering},
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

use self::own::{OwnLabels, own_values};
use super::{
    Metrics,
    register::{Histograms, Registered},
};

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

/// 4 µs to 2 s.
fn call_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_004, 2.0, 20))
}

/// The families, each registered once.
pub(super) struct Families {
    calls: Family<HookLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    seconds: Histograms<HookLabels>,
    peak_bytes: Family<HookLabels, Gauge>,
    dropped: Family<DroppedLabels, Counter>,
    loads: Family<LoadLabels, Counter>,
    own_counts: Family<OwnLabels, Counter>,
    own_values: Histograms<OwnLabels>,
}

impl Families {
    /// Registers them.
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

    fn plugin(&self, name: &str) -> PluginMetrics {
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

impl Metrics {
    /// The metrics of one plugin.
    #[must_use]
    pub fn plugin(&self, name: &str) -> PluginMetrics {
        self.0.plugins.plugin(name)
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
    own_values: Histograms<OwnLabels>,
    label_sets: Arc<Mutex<HashSet<OwnLabels>>>,
    plugin: String,
}

impl PluginMetrics {
    /// The metrics of one of its hooks.
    #[must_use]
    pub fn hook(&self, hook: Hook) -> &HookMetrics {
        &self.hooks[hook as usize]
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
