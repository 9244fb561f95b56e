//! The flights: computations in progress, and the callers that wait for them.
//!
//! A flight is one shared future that any of its callers drives on. It does not belong to the caller who began it: it goes
//! on while anybody waits, and when the last one leaves it is dropped, and with it its place in the queue.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use dashmap::{DashMap, mapref::entry::Entry};
use embedgate_core::PerHead;
use embedgate_request::{Error, Lane};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use super::{key::CacheKey, value::CachedValue};
use crate::batch::Urgent;

type FlightResult = Result<Arc<PerHead<Arc<CachedValue>>>, Error>;
type FlightFuture = BoxFuture<'static, FlightResult>;

/// A computation that somebody waits for. Dropping it is leaving.
#[derive(Clone)]
pub(crate) struct Flight(Shared<FlightFuture>);

impl Future for Flight {
    type Output = FlightResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FlightResult> {
        Pin::new(&mut self.0).poll(cx)
    }
}

struct FlightEntry {
    id: u64,
    work: WeakShared<FlightFuture>,
    urgent: Urgent,
}

impl FlightEntry {
    /// The flight, unless everybody left it. A caller of the query lane makes it urgent.
    fn join(&self, lane: Lane) -> Option<Flight> {
        let flight = self.work.upgrade().map(Flight)?;
        if lane == Lane::Query {
            self.urgent.set();
        }
        Some(flight)
    }
}

#[derive(Default)]
pub(super) struct Flights {
    by_key: DashMap<CacheKey, FlightEntry>,
    next_id: AtomicU64,
}

impl Flights {
    pub(super) fn join(&self, key: &CacheKey, lane: Lane) -> Option<Flight> {
        // Nothing that the lock protects is dropped under it: the end of a flight takes the same lock.
        self.by_key.get(key)?.join(lane)
    }

    /// Registers new work under its keys, or joins the work that is registered under one of them already.
    pub(super) fn start<F>(
        self: &Arc<Self>,
        keys: PerHead<CacheKey>,
        lane: Lane,
        work: impl FnOnce(Urgent) -> F,
    ) -> Flight
    where
        F: Future<Output = FlightResult> + Send + 'static,
    {
        let urgent = Urgent::default();
        if lane == Lane::Query {
            urgent.set();
        }
        let guard = FlightGuard {
            flights: Arc::clone(self),
            keys,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
        };
        let id = guard.id;
        let work = work(urgent.clone());
        let work: FlightFuture = Box::pin(async move {
            let result = work.await;
            // What was computed is in the cache by now.
            drop(guard);
            result
        });
        let shared = work.shared();
        let is_alone = keys.iter().count() == 1;
        for (_, key) in keys.iter() {
            let Some(work) = shared.downgrade() else {
                continue;
            };
            let entry = FlightEntry {
                id,
                work,
                urgent: urgent.clone(),
            };
            // Of several heads one may be under way already: then it is computed twice, which costs time and no more.
            if let Some(other) = self.register(*key, entry, lane)
                && is_alone
            {
                return other;
            }
        }
        Flight(shared)
    }

    /// Takes the key, unless there is a flight that somebody still waits for: then that one is returned.
    fn register(&self, key: CacheKey, entry: FlightEntry, lane: Lane) -> Option<Flight> {
        match self.by_key.entry(key) {
            Entry::Occupied(mut there) => {
                let alive = there.get().join(lane);
                if alive.is_none() {
                    there.insert(entry);
                }
                alive
            }
            Entry::Vacant(free) => {
                free.insert(entry);
                None
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }
}

/// Gives the keys free when the work has ended or was left by all.
struct FlightGuard {
    flights: Arc<Flights>,
    keys: PerHead<CacheKey>,
    id: u64,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        for (_, key) in self.keys.iter() {
            self.flights
                .by_key
                .remove_if(key, |_, there| there.id == self.id);
        }
    }
}
