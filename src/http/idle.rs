//! The connections that wait for a request, so that the one that has waited longest can make room for another.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use slab::Slab;

/// A new connection has this time for its request before it is told to make room.
const GRACE: Duration = Duration::from_secs(1);
/// The turn of a connection that does not wait.
const BUSY: u64 = 0;

/// All connections. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Line>);

/// A request takes no lock: its connection says by its turn whether it waits, and since when. Who makes room looks at all.
#[derive(Default)]
struct Line {
    last_turn: AtomicU64,
    connections: Mutex<Slab<Arc<Seat>>>,
}

/// One connection, as the line sees it.
struct Seat {
    arrived: Instant,
    /// False until its first request, which may be on its way.
    had_request: AtomicBool,
    /// Lower for those who wait longer.
    turn: AtomicU64,
    /// Told to make room.
    is_called: AtomicBool,
    waker: AtomicWaker,
}

/// The place of one connection.
pub(super) struct Place {
    waiting: Waiting,
    number: usize,
    seat: Arc<Seat>,
}

impl Waiting {
    /// A place for a new connection, which waits for its first request.
    pub(super) fn enter(&self) -> Place {
        let seat = Arc::new(Seat {
            arrived: Instant::now(),
            had_request: AtomicBool::new(false),
            turn: AtomicU64::new(self.next_turn()),
            is_called: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let number = self.connections().insert(Arc::clone(&seat));
        Place {
            waiting: self.clone(),
            number,
            seat,
        }
    }

    /// Tells the connection that has waited longest to end: one that had a request, else a new one that had time for it.
    /// Returns whether there is one.
    pub(super) fn make_room(&self) -> bool {
        loop {
            let connections = self.connections();
            let longest = connections
                .iter()
                .filter_map(|(_, seat)| {
                    let turn = seat.turn.load(Ordering::Acquire);
                    let is_new = !seat.had_request.load(Ordering::Acquire);
                    let may_go = turn != BUSY && (!is_new || seat.arrived.elapsed() >= GRACE);
                    may_go.then_some((is_new, turn, seat))
                })
                .min_by_key(|(is_new, turn, _)| (*is_new, *turn));
            let Some((_, turn, seat)) = longest else {
                return false;
            };
            // A request may have come in this moment; then it is not told.
            let left = seat
                .turn
                .compare_exchange(turn, BUSY, Ordering::AcqRel, Ordering::Acquire);
            if left.is_ok() {
                seat.is_called.store(true, Ordering::Release);
                seat.waker.wake();
                return true;
            }
        }
    }

    fn next_turn(&self) -> u64 {
        self.0.last_turn.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Slab<Arc<Seat>>> {
        // Nothing panics between two steps of a change.
        self.0
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Goes to the end of the line, unless it stands in it.
    pub(super) fn wait(&self) {
        // One that was told to make room ends as soon as it waits.
        let is_called = self.seat.is_called.load(Ordering::Acquire);
        if !is_called && self.seat.turn.load(Ordering::Acquire) == BUSY {
            self.seat
                .turn
                .store(self.waiting.next_turn(), Ordering::Release);
        }
    }

    /// Leaves the line: a request comes.
    pub(super) fn leave(&self) {
        self.seat.had_request.store(true, Ordering::Release);
        self.seat.turn.store(BUSY, Ordering::Release);
    }

    /// Ready when the connection is to make room.
    pub(super) fn poll_called(&self, cx: &Context<'_>) -> Poll<()> {
        self.seat.waker.register(cx.waker());
        match self.seat.is_called.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.connections().remove(self.number);
    }
}
