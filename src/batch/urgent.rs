//! Work of the bulk lane that somebody of the query lane waits for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Set by a caller of the query lane who waits for work that was begun for bulk.
#[derive(Clone, Default)]
pub(crate) struct Urgent(Arc<(AtomicBool, Notify)>);

impl Urgent {
    /// Makes the work urgent, now or while it waits.
    pub(crate) fn set(&self) {
        self.0.0.store(true, Ordering::Relaxed);
        self.0.1.notify_one();
    }

    /// Returns true when the work was made urgent.
    #[must_use]
    pub(crate) fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Waits until it is made so. Only one can wait.
    pub(super) async fn until_set(&self) {
        while !self.is_set() {
            self.0.1.notified().await;
        }
    }
}
