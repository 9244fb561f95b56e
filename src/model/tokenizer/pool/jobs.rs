//! The texts that wait for a tokenizer thread: queries first, and long ones apart.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use embedgate_request::Lane;

use super::TextTokenizer;

/// Longer texts take milliseconds, and one thread of several never takes them.
const LONG_BYTES: usize = 64 << 10;

/// Every so many texts one of bulk goes first, so that it never starves.
const BULK_EVERY: usize = 8;

/// Work on a text. It holds the text weakly: what waits here takes no memory for who left. (That of a `Weak<str>` would
/// stay.)
pub(super) type Job = Box<dyn FnOnce(&TextTokenizer) + Send>;

/// Texts that wait for a tokenizer thread, by lane. Their admission bounds how many there are.
#[derive(Default)]
pub(super) struct Jobs {
    state: Mutex<JobsState>,
    changed: Condvar,
}

#[derive(Default)]
struct JobsState {
    /// Queries, bulk, and texts that take long, of either lane.
    queues: [VecDeque<Job>; 3],
    taken: usize,
    closed: bool,
}

impl Jobs {
    /// Adds work on a text of so many bytes.
    pub(super) fn push(&self, lane: Lane, job: Job, bytes: usize) {
        let queue = if bytes > LONG_BYTES { 2 } else { lane as usize };
        self.lock().queues[queue].push_back(job);
        // All, since not every thread takes every text.
        self.changed.notify_all();
    }

    /// The next text; none when the pool is gone. Blocks.
    pub(super) fn next(&self, long_too: bool) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.take(long_too) {
                return Some(job);
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the threads.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, JobsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JobsState {
    /// The next text, queries first.
    fn take(&mut self, long_too: bool) -> Option<Job> {
        self.taken += 1;
        let order = if self.taken.is_multiple_of(BULK_EVERY) {
            [1, 0, 2]
        } else {
            [0, 1, 2]
        };
        let order = &order[..if long_too { 3 } else { 2 }];
        order.iter().find_map(|i| self.queues[*i].pop_front())
    }
}
