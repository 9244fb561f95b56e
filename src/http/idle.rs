//! The connections that wait for a request, so that the one that has waited longest can make room for another.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;

/// All connections that wait. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<Line>>);

#[derive(Default)]
struct Line {
    next: u64,
    /// Connections that had a request, by the order in which they began to wait.
    idle: BTreeMap<u64, Arc<Call>>,
    /// Those that had none yet, which may be on its way, and since when they wait.
    new: BTreeMap<u64, (Instant, Arc<Call>)>,
}

/// A new connection has this time for its request before it is told to make room.
const GRACE: Duration = Duration::from_secs(1);

/// Tells a connection to make room.
#[derive(Default)]
struct Call {
    is_made: AtomicBool,
    waker: AtomicWaker,
}

/// The place of one connection, which it holds while it waits.
pub(super) struct Place {
    waiting: Waiting,
    number: Option<u64>,
    call: Arc<Call>,
}

impl Waiting {
    /// A place for a new connection, which waits for its first request.
    pub(super) fn enter(&self) -> Place {
        let call = Arc::<Call>::default();
        let mut line = self.line();
        let number = line.number();
        line.new.insert(number, (Instant::now(), Arc::clone(&call)));
        drop(line);
        Place {
            waiting: self.clone(),
            number: Some(number),
            call,
        }
    }

    /// Tells the connection that has waited longest to end. Returns whether there is one.
    pub(super) fn make_room(&self) -> bool {
        let Some(call) = self.line().longest() else {
            return false;
        };
        call.is_made.store(true, Ordering::Release);
        call.waker.wake();
        true
    }

    fn line(&self) -> std::sync::MutexGuard<'_, Line> {
        // Nothing panics between two steps of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn longest(&mut self) -> Option<Arc<Call>> {
        if let Some((_, call)) = self.idle.pop_first() {
            return Some(call);
        }
        let oldest = self.new.first_entry()?;
        (oldest.get().0.elapsed() >= GRACE).then(|| oldest.remove().1)
    }
}

impl Place {
    /// Goes to the end of the line, unless it stands in it.
    pub(super) fn wait(&mut self) {
        if self.number.is_none() {
            let mut line = self.waiting.line();
            let number = line.number();
            line.idle.insert(number, Arc::clone(&self.call));
            self.number = Some(number);
        }
    }

    /// Leaves the line: a request comes.
    pub(super) fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            let mut line = self.waiting.line();
            line.idle.remove(&number);
            line.new.remove(&number);
        }
    }

    /// Ready when the connection is to make room.
    pub(super) fn poll_called(&self, cx: &Context<'_>) -> Poll<()> {
        self.call.waker.register(cx.waker());
        match self.call.is_made.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}
