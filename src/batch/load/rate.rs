//! The rate at which a queue drains, learned from the batches that are run.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The drain rate is an average over about so many seconds of work.
const RATE_SECONDS: f64 = 5.0;

/// Tokens a second that are drained, lately.
pub(super) struct DrainRate {
    /// Bits of an f64.
    tokens_per_second: AtomicU64,
}

impl DrainRate {
    pub(super) fn new(tokens_per_second: f64) -> Self {
        Self {
            tokens_per_second: AtomicU64::new(tokens_per_second.to_bits()),
        }
    }

    /// Returns the tokens a second.
    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.tokens_per_second.load(Ordering::Relaxed)).max(1e-3)
    }

    /// Estimates the time in which so many tokens are drained.
    pub(super) fn time_for(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64(tokens / self.get()).unwrap_or(Duration::MAX)
    }

    /// Learns from a stretch of work: so many tokens in so much time, while `replicas` worked side by side.
    pub(super) fn observe(&self, tokens: usize, duration: Duration, replicas: usize) {
        let duration = duration.as_secs_f64().max(1e-6);
        let now = tokens as f64 / duration * replicas.max(1) as f64;
        let weight = 1.0 - (-duration / RATE_SECONDS).exp();
        let rate = self.get() * (1.0 - weight) + now * weight;
        self.tokens_per_second
            .store(rate.to_bits(), Ordering::Relaxed);
    }
}
