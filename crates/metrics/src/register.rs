//! Registers metrics, and makes their families and their buckets.

use std::hash::Hash;

use prometheus_client::{
    metrics::{
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

/// Registers a metric and hands it on.
pub(super) struct Registered<'a>(pub(super) &'a mut Registry);

impl Registered<'_> {
    /// Registers one under its name.
    pub(super) fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

/// Histograms by labels, all with the same buckets.
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Makes a family of times of whole requests and of parts of them.
pub(super) fn seconds<L: Clone + Hash + Eq>() -> Histograms<L> {
    Family::new_with_constructor(request_seconds as fn() -> Histogram)
}

/// Makes a family of counts.
pub(super) fn counts<L: Clone + Hash + Eq>() -> Histograms<L> {
    Family::new_with_constructor(powers_of_two as fn() -> Histogram)
}

/// 0.25 ms to 2 minutes, for whole requests and the wait in the queue.
pub(super) fn buckets_of_seconds() -> impl Iterator<Item = f64> {
    exponential_buckets(0.000_25, 2.0, 20)
}

fn request_seconds() -> Histogram {
    Histogram::new(buckets_of_seconds())
}

/// 1 to 32768.
fn powers_of_two() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 16))
}
