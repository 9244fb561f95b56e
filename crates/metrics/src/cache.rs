//! The metrics of the cache: in memory, and in its file.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::{Metrics, register::Registered};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

/// The families, each registered once.
pub(super) struct Families {
    entries: Gauge,
    bytes: Gauge,
    evictions: Family<CauseLabels, Counter>,
    file_commits: Counter,
    file_used: Gauge,
    file_bytes: Gauge,
}

impl Families {
    /// Registers them.
    pub(super) fn register(all: &mut Registered<'_>) -> Self {
        Self {
            entries: all.add(
                "embedgate_cache_entries",
                "Results in the memory cache",
                Gauge::default(),
            ),
            bytes: all.add(
                "embedgate_cache_bytes",
                "Memory that results in the cache take",
                Gauge::default(),
            ),
            evictions: all.add(
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
        }
    }
}

impl Metrics {
    /// Counts a result that left the cache.
    pub fn evicted(&self, cause: &'static str) {
        let labels = CauseLabels { cause };
        self.0.cache.evictions.get_or_create(&labels).inc();
    }

    /// Says whether the cache's file is in use.
    pub fn file_is_used(&self, is_used: bool) {
        self.0.cache.file_used.set(is_used.into());
    }

    /// Says how long the cache's file is.
    pub fn file_bytes(&self, bytes: u64) {
        self.0
            .cache
            .file_bytes
            .set(bytes.try_into().unwrap_or(i64::MAX));
    }

    /// Counts a commit of the cache's file.
    pub fn file_commit(&self) {
        self.0.cache.file_commits.inc();
    }

    /// Notes what the cache holds now.
    pub fn cache(&self, entries: u64, bytes: u64) {
        self.0.cache.entries.set(entries.cast_signed());
        self.0.cache.bytes.set(bytes.cast_signed());
    }
}
