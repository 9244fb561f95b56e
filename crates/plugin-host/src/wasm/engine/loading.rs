//! The threads that load and compile, and the time that they take of the processors.

use std::{
    fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The threads that load and compile, by the system's numbers.
#[derive(Clone, Default)]
pub(super) struct LoadingThreads(Arc<Mutex<Vec<u32>>>);

impl LoadingThreads {
    /// Counts the calling thread until the result is dropped.
    pub(super) fn register(&self) -> LoadingThread<'_> {
        LoadingThread {
            all: self,
            id: self.add_this(),
        }
    }

    /// Counts the calling thread, and returns its number.
    pub(super) fn add_this(&self) -> u32 {
        let id = this_thread();
        self.lock().push(id);
        id
    }

    /// The time that they had on a processor; none where the system does not say.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let of = |id: &u32| {
            let stat = fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?;
            stat.split(' ').next()?.parse().ok()
        };
        let times: Vec<u64> = self.lock().iter().filter_map(of).collect();
        (!times.is_empty()).then(|| Duration::from_nanos(times.iter().sum()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread among those that load, until it is dropped.
pub(in crate::wasm) struct LoadingThread<'e> {
    all: &'e LoadingThreads,
    id: u32,
}

impl Drop for LoadingThread<'_> {
    fn drop(&mut self) {
        // The system gives the number to another thread.
        self.all.lock().retain(|id| *id != self.id);
    }
}

#[cfg(target_os = "linux")]
fn this_thread() -> u32 {
    let id = rustix::thread::gettid().as_raw_nonzero().get();
    id.unsigned_abs()
}

/// Elsewhere the system is not asked.
#[cfg(not(target_os = "linux"))]
fn this_thread() -> u32 {
    0
}
