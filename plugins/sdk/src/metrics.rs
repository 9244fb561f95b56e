//! The plugin's own metrics. Grant: `metrics = ["name", ...]`; others are dropped and counted.

use crate::host::metrics;

/// Adds to a counter.
pub fn add(name: &str, labels: &[(&str, &str)], delta: u64) {
    metrics::add(name, &owned(labels), delta);
}

/// Records one value of a distribution.
pub fn observe(name: &str, labels: &[(&str, &str)], value: f64) {
    metrics::observe(name, &owned(labels), value);
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
