//! The metrics of the process: its connections and its memory.

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
            .set(resident_bytes().unwrap_or(0).cast_signed());
    }
}

impl Metrics {
    /// Open connections, to count up and down.
    #[must_use]
    pub fn connections(&self) -> &Gauge {
        &self.0.process.connections
    }
}

/// Linux only; elsewhere there is no such number.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}
