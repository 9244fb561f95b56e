//! The bound on the inputs that wait or run at once: a permit for each.

use std::sync::Arc;

use embedgate_request::Lane;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The permits of one queue.
pub(super) struct Permits {
    all: Arc<Semaphore>,
    /// Bulk needs one of these too: there are fewer, so that an import leaves room for queries.
    bulk: Arc<Semaphore>,
    capacity: usize,
    bulk_capacity: usize,
}

/// The permits of one request, or one of them. Dropping them gives them back.
pub(super) struct Permit {
    all: OwnedSemaphorePermit,
    bulk: Option<OwnedSemaphorePermit>,
}

impl Permits {
    pub(super) fn new(capacity: usize, bulk_capacity: usize) -> Self {
        let bulk_capacity = bulk_capacity.min(capacity);
        Self {
            all: Arc::new(Semaphore::new(capacity)),
            bulk: Arc::new(Semaphore::new(bulk_capacity)),
            capacity,
            bulk_capacity,
        }
    }

    /// Takes permits for so many inputs, or none; `refuse` is told how many are missing.
    pub(super) fn take<E>(
        &self,
        inputs: usize,
        lane: Lane,
        refuse: impl Fn(usize) -> E,
    ) -> Result<Permit, E> {
        let n = u32::try_from(inputs).unwrap_or(u32::MAX);
        let take = |semaphore: &Arc<Semaphore>| {
            let permits = Arc::clone(semaphore).try_acquire_many_owned(n);
            permits.map_err(|_| refuse(inputs.saturating_sub(semaphore.available_permits())))
        };
        let all = take(&self.all)?;
        let bulk = match lane {
            Lane::Query => None,
            Lane::Bulk => Some(take(&self.bulk)?),
        };
        Ok(Permit { all, bulk })
    }

    /// Counts the permits that are taken.
    pub(super) fn taken(&self) -> usize {
        self.capacity - self.all.available_permits()
    }

    /// Returns the largest number of inputs that a lane can have at once.
    pub(super) fn most_at_once(&self, lane: Lane) -> usize {
        match lane {
            Lane::Query => self.capacity,
            Lane::Bulk => self.bulk_capacity,
        }
    }
}

impl Permit {
    /// Splits off the permit of one input; none where none is left.
    pub(super) fn split_one(&mut self) -> Option<Self> {
        let all = self.all.split(1)?;
        let bulk = self.bulk.as_mut().and_then(|permits| permits.split(1));
        Some(Self { all, bulk })
    }
}
