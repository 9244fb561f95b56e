//! The metrics of the process: its connections and its memory.

use embedgate_core::machine::memory;
use prometheus_client::metrics::gauge::Gauge;

use super::{Metrics, register::Registered};

/// The families, each registered once.
pub(super) struct Families {
    connections: Gauge,
    resident_bytes: Gauge,
}

impl Families {
    /// Registers them.
    pub(super) fn register(all: &mut Registered<'_>) -> Self {
        Self {
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
    /// Open connections, to count up and down.
    #[must_use]
    pub fn connections(&self) -> &Gauge {
        &self.0.process.connections
    }
}
