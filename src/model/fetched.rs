//! The progress of fetching a model's files.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The progress of fetching a model's files, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    done: AtomicU64,
    total: AtomicU64,
    /// The reason why the fetch stands still, until it is tried again.
    problem: Mutex<Option<String>>,
}

impl Fetched {
    /// Notes how far it is.
    #[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "nothing is fetched"))]
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        *self.problem() = None;
    }

    /// Notes that it stands still.
    pub(crate) fn fail(&self, reason: String) {
        *self.problem() = Some(reason);
    }

    /// Bytes that are there, and all.
    pub(crate) fn get(&self) -> (u64, u64) {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (load(&self.done), load(&self.total))
    }

    /// The reason why the fetch stands still.
    pub(super) fn problem(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
