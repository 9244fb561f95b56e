//! The slots for connections: how many are served at once, and what becomes of one that is too many.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::idle::IdleConnections;

/// Connections beyond `max_connections` that are served at once. Each is for one answer of a moment.
const RESERVE: usize = 64;
/// A connection that is told to make room ends within this time.
const TO_MAKE_ROOM: Duration = Duration::from_millis(50);
const NEVER_CLOSED: &str = "the semaphores are never closed";

/// The slots for connections.
pub(super) struct ConnectionSlots {
    all: Arc<Semaphore>,
    /// Beyond `max_connections`, so that probes and refusals are answered when all are busy.
    reserve: Arc<Semaphore>,
    pub(super) idle: IdleConnections,
}

/// A connection's slot, until it is dropped.
pub(super) struct ConnectionSlot {
    pub(super) is_reserve: bool,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlots {
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(max_connections)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            idle: IdleConnections::default(),
        }
    }

    /// Takes a slot for one more connection. Where all are taken, the one that has waited longest for a request makes room; where
    /// none waits, there are some in reserve.
    pub(super) async fn take(&self) -> ConnectionSlot {
        let slot = |is_reserve: bool, permit| ConnectionSlot {
            is_reserve,
            _permit: permit,
        };
        let all = || Arc::clone(&self.all);
        if let Ok(permit) = all().try_acquire_owned() {
            return slot(false, permit);
        }
        // It may have got a request in this moment.
        if self.idle.make_room()
            && let Ok(permit) = tokio::time::timeout(TO_MAKE_ROOM, all().acquire_owned()).await
        {
            return slot(false, permit.expect(NEVER_CLOSED));
        }
        if let Ok(permit) = Arc::clone(&self.reserve).try_acquire_owned() {
            return slot(true, permit);
        }
        tokio::select! {
            permit = all().acquire_owned() => slot(false, permit.expect(NEVER_CLOSED)),
            permit = Arc::clone(&self.reserve).acquire_owned() => slot(true, permit.expect(NEVER_CLOSED)),
        }
    }

    /// Waits until every slot is given back.
    pub(super) async fn all_given_back(&self, max_connections: usize) {
        for (slots, n) in [(&self.all, max_connections), (&self.reserve, RESERVE)] {
            let all = slots.acquire_many(u32::try_from(n).unwrap_or(u32::MAX));
            drop(all.await.expect(NEVER_CLOSED));
        }
    }

    pub(super) fn n_taken(&self, max_connections: usize) -> usize {
        max_connections + RESERVE - self.all.available_permits() - self.reserve.available_permits()
    }
}
