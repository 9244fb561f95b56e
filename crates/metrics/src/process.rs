//! The metrics of the process: its connections and its memory.

use embedgate_core::machine::memory;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::{Metrics, register::Registered};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SpanLabels {
    result: &'static str,
}

/// The families, each registered once.
pub(super) struct Families {
    build: Family<BuildLabels, Gauge>,
    spans: Family<SpanLabels, Counter>,
    connections: Gauge,
    resident_bytes: Gauge,
}

impl Families {
    /// Registers them.
    pub(super) fn register(all: &mut Registered<'_>) -> Self {
        Self {
            build: all.add(
                "embedgate_build_info",
                "1, with the version of the program",
                Family::default(),
            ),
            spans: all.add(
                "embedgate_trace_spans",
                "Spans of traces, by what became of them",
                Family::default(),
            ),
            connections: all.add(
                "embedgate_connections",
                "Open connections",
                Gauge::default(),
            ),
            resident_bytes: all.add(
                "process_resident_memory_bytes",
                "Resident memory of the process",
                Gauge::default(),
            ),
        }
    }

    /// Notes how much memory the process has now.
    pub(super) fn measure(&self) {
        self.resident_bytes
            .set(memory::resident().unwrap_or(0).cast_signed());
    }
}

impl Metrics {
    /// Notes the version of the program.
    pub fn build(&self, version: &'static str) {
        let labels = BuildLabels { version };
        self.0.process.build.get_or_create(&labels).set(1);
    }

    /// Counts spans that were `exported`, that the collector did not take (`failed`), or that found no room (`dropped`).
    pub fn spans(&self, result: &'static str, n: usize) {
        let labels = SpanLabels { result };
        let spans = self.0.process.spans.get_or_create(&labels);
        spans.inc_by(n as u64);
    }

    /// Open connections, to count up and down.
    #[must_use]
    pub fn connections(&self) -> &Gauge {
        &self.0.process.connections
    }
}
