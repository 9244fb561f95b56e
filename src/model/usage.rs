//! The use of a model: when it was last asked, and the memory that it takes.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::Model;
use crate::batch::Batcher;

/// The memory of a model, as long as anybody holds it.
pub(crate) struct MemoryUse {
    bytes: u64,
    holder: Weak<Batcher>,
}

impl MemoryUse {
    /// In bytes, by estimate.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns true while the model is held.
    pub(crate) fn is_held(&self) -> bool {
        self.holder.strong_count() > 0
    }
}

/// The time of a model's last use, in milliseconds since `started`.
#[derive(Debug)]
pub(super) struct LastUse {
    started: Instant,
    milliseconds: AtomicU64,
}

impl LastUse {
    /// The use that begins now.
    pub(super) fn now() -> Self {
        Self {
            started: Instant::now(),
            milliseconds: AtomicU64::new(0),
        }
    }
}

impl Model {
    /// Notes that somebody uses it.
    pub(crate) fn touch(&self) {
        let now = self.last_use.started.elapsed().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.last_use.milliseconds.store(now, Ordering::Relaxed);
    }

    /// For how long nobody has used it.
    #[must_use]
    pub(crate) fn unused_for(&self) -> Duration {
        if self.batcher.in_flight() > 0 {
            return Duration::ZERO;
        }
        let last = self.last_use.milliseconds.load(Ordering::Relaxed);
        let since = self.last_use.started.elapsed();
        since.saturating_sub(Duration::from_millis(last))
    }

    /// Returns the memory that the model takes, to be counted as long as the model is there.
    #[must_use]
    pub(crate) fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            bytes: self.memory,
            holder: Arc::downgrade(&self.batcher),
        }
    }
}
