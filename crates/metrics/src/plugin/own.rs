//! The metrics that a plugin counts itself: under its own name, and no more of them than it may.

use std::sync::PoisonError;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::PluginMetrics;

/// Label sets that one plugin may make.
const MOST_LABEL_SETS: usize = 100;
/// A longer label value is cut.
const MOST_LABEL_BYTES: usize = 128;

/// Labels and their values, the name of the plugin first.
pub(super) type OwnLabels = Vec<(String, String)>;

/// Whatever a plugin observes: 1/1024 to 32768.
pub(super) fn own_values() -> Histogram {
    Histogram::new(exponential_buckets(1.0 / 1024.0, 4.0, 13))
}

impl PluginMetrics {
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

#[cfg(test)]
mod tests {
    use crate::Metrics;

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
