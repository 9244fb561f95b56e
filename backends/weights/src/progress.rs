//! The progress of the reading of a model's weights.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Below this a model loads at once, and its progress is noise.
const WORTH_REPORTING: u64 = 256 << 20;

/// Says how far loading is, at most ten times, and only for models that take a while.
pub(super) struct Progress {
    folder: PathBuf,
    /// In bytes as f32, as all sizes here.
    total: u64,
    read: AtomicU64,
}

impl Progress {
    /// Progress of a model of so many bytes as f32.
    pub(super) fn new(folder: &Path, total: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            total,
            read: AtomicU64::new(0),
        }
    }

    /// Adds numbers that were read.
    pub(super) fn add(&self, n_numbers: usize) {
        let bytes = n_numbers as u64 * 4;
        let before = self.read.fetch_add(bytes, Ordering::Relaxed);
        let tenth = |n: u64| n * 10 / self.total.max(1);
        if self.total >= WORTH_REPORTING && tenth(before) != tenth(before + bytes) {
            let percent = (before + bytes) * 100 / self.total;
            tracing::info!(
                path = %self.folder.display(), percent, total_mib = self.total >> 20,
                "reading weights of {}: {percent} % of {} MiB", self.folder.display(), self.total >> 20
            );
        }
    }
}
