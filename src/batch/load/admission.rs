//! Leave to put one sequence into the queue.

use std::sync::Arc;

use embedgate_request::Lane;

use super::{QueueLoad, backlog::Counted, permits::Permit};

/// Leave to put one sequence into the queue, and the bound on how many there are. Dropping it gives it back.
pub(crate) struct Admission {
    pub(super) counted: Counted,
    pub(super) place: u64,
    pub(super) load: Arc<QueueLoad>,
    pub(super) _permit: Permit,
}

impl Admission {
    /// The lane that it was given for.
    #[must_use]
    pub(crate) fn lane(&self) -> Lane {
        self.counted.lane
    }

    /// The place of its request among those who wait: lower ones came in earlier.
    #[must_use]
    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    /// Corrects the estimate, once the tokens are counted.
    pub(crate) fn set_tokens(&mut self, tokens: usize) {
        let counted = self.load.backlog.add(self.lane(), tokens);
        let before = std::mem::replace(&mut self.counted, counted);
        self.load.backlog.give_back(before);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.load.backlog.give_back(self.counted);
    }
}
