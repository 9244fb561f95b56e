//! The clock of guests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The clock of guests.
#[derive(Clone)]
pub(super) enum Clock {
    /// The real time.
    Real { started: Instant },
    /// The time that a test sets: milliseconds since 1970.
    Set(Arc<AtomicU64>),
}

impl Clock {
    /// The real time, from now on.
    pub(super) fn real() -> Self {
        Self::Real {
            started: Instant::now(),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn unix_ms(&self) -> u64 {
        match self {
            Self::Real { .. } => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Self::Set(ms) => ms.load(Ordering::Relaxed),
        }
    }

    /// Since some fixed moment.
    pub(super) fn monotonic(&self) -> Duration {
        match self {
            Self::Real { started } => started.elapsed(),
            Self::Set(ms) => Duration::from_millis(ms.load(Ordering::Relaxed)),
        }
    }
}
