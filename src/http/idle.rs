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
pub(super) struct IdleConnections(Arc<Line>);

/// A request takes no lock: its connection says by its turn whether it waits, and since when. Who makes room looks at all.
#[derive(Default)]
struct Line {
    last_turn: AtomicU64,
    connections: Mutex<Slab<Arc<IdleState>>>,
}

/// One connection, as the line sees it.
struct IdleState {
    arrived: Instant,
    /// False until its first request, which may be on its way.
    had_request: AtomicBool,
    /// Lower for those who wait longer.
    turn: AtomicU64,
    /// Told to make room.
    is_called: AtomicBool,
    waker: AtomicWaker,
}

/// The handle by which one connection says whether it waits.
pub(super) struct IdleHandle {
    idle: IdleConnections,
    number: usize,
    state: Arc<IdleState>,
}

impl IdleConnections {
    /// Returns the handle of a new connection, which waits for its first request.
    pub(super) fn enter(&self) -> IdleHandle {
        let state = Arc::new(IdleState {
            arrived: Instant::now(),
            had_request: AtomicBool::new(false),
            turn: AtomicU64::new(self.next_turn()),
            is_called: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let number = self.connections().insert(Arc::clone(&state));
        IdleHandle {
            idle: self.clone(),
            number,
            state,
        }
    }

    /// Tells the connection that has waited longest to end: one that had a request, else a new one that had time for it.
    /// Returns whether there is one.
    pub(super) fn make_room(&self) -> bool {
        loop {
            let connections = self.connections();
            let longest = connections
                .iter()
                .filter_map(|(_, state)| {
                    let turn = state.turn.load(Ordering::Acquire);
                    let is_new = !state.had_request.load(Ordering::Acquire);
                    let may_go = turn != BUSY && (!is_new || state.arrived.elapsed() >= GRACE);
                    may_go.then_some((is_new, turn, state))
                })
                .min_by_key(|(is_new, turn, _)| (*is_new, *turn));
            let Some((_, turn, state)) = longest else {
                return false;
            };
            // A request may have come in this moment; then it is not told.
            let left = state
                .turn
                .compare_exchange(turn, BUSY, Ordering::AcqRel, Ordering::Acquire);
            if left.is_ok() {
                state.is_called.store(true, Ordering::Release);
                state.waker.wake();
                return true;
            }
        }
    }

    fn next_turn(&self) -> u64 {
        self.0.last_turn.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Slab<Arc<IdleState>>> {
        // Nothing panics between two steps of a change.
        self.0
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleHandle {
    /// Goes to the end of the line, unless it stands in it.
    pub(super) fn wait(&self) {
        // One that was told to make room ends as soon as it waits.
        let is_called = self.state.is_called.load(Ordering::Acquire);
        if !is_called && self.state.turn.load(Ordering::Acquire) == BUSY {
            self.state
                .turn
                .store(self.idle.next_turn(), Ordering::Release);
        }
    }

    /// Leaves the line: a request comes.
    pub(super) fn leave(&self) {
        self.state.had_request.store(true, Ordering::Release);
        self.state.turn.store(BUSY, Ordering::Release);
    }

    /// Ready when the connection is to make room.
    pub(super) fn poll_called(&self, cx: &Context<'_>) -> Poll<()> {
        self.state.waker.register(cx.waker());
        match self.state.is_called.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for IdleHandle {
    fn drop(&mut self) {
        self.idle.connections().remove(self.number);
    }
}
