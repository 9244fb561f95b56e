//! The threads that tokenize, and the texts that wait for them.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::oneshot;

use super::{TextTokenizer, Tokenized};
use crate::{
    error::Error,
    request::{Lane, Side},
};

struct Job {
    /// Gone when the caller is: what waits here takes no memory for who left. (That of a `Weak<str>` would stay.)
    text: Weak<String>,
    /// The query that the text may answer, in a pair.
    query: Option<Weak<String>>,
    /// Where it is cut.
    side: Side,
    reply: oneshot::Sender<Result<Tokenized, String>>,
}

/// Texts that wait for a tokenizer thread, by lane. Their admission bounds how many there are.
#[derive(Default)]
struct Jobs {
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

/// Longer texts take milliseconds, and one thread of several never takes them.
const LONG_BYTES: usize = 64 << 10;
/// Every so many texts one of bulk goes first, so that it never starves.
const BULK_EVERY: usize = 8;

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

impl Jobs {
    fn push(&self, lane: Lane, job: Job, bytes: usize) {
        let queue = if bytes > LONG_BYTES { 2 } else { lane as usize };
        self.lock().queues[queue].push_back(job);
        // All, since not every thread takes every text.
        self.changed.notify_all();
    }

    /// The next text; none when the pool is gone. Blocks.
    fn next(&self, long_too: bool) -> Option<Job> {
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

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, JobsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tokenizer threads of one model; they end when the pool is dropped.
pub struct TokenizerPool {
    jobs: Arc<Jobs>,
}

impl TokenizerPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(model: &str, tokenizer: &TextTokenizer, threads: usize) -> std::io::Result<Self> {
        let pool = Self {
            jobs: Arc::default(),
        };
        for i in 0..threads {
            let (jobs, tokenizer) = (Arc::clone(&pool.jobs), tokenizer.clone());
            let long_too = i > 0 || threads == 1;
            let work = move || {
                while let Some(Job {
                    text,
                    query,
                    side,
                    reply,
                }) = jobs.next(long_too)
                {
                    if let Some(text) = text.upgrade() {
                        // An error means that the caller left in the meantime.
                        let given_up = || reply.is_closed();
                        let query = query.map(|query| query.upgrade().unwrap_or_default());
                        let result = match query {
                            None => tokenizer.encode_unless(&text, side, given_up),
                            Some(query) => {
                                tokenizer.encode_pair_unless(&query, &text, side, given_up)
                            }
                        };
                        drop(reply.send(result));
                    }
                }
            };
            std::thread::Builder::new()
                .name(format!("tokenizer-{i}-{model}"))
                .spawn(work)?;
        }
        Ok(pool)
    }

    /// Tokenizes one text, or a pair of a query and a text, cut on one side.
    ///
    /// # Errors
    /// `InvalidRequest` when the tokenizer refuses the text; `Unavailable` when the threads are gone.
    pub async fn encode(
        &self,
        query: Option<&Arc<String>>,
        text: Arc<String>,
        side: Side,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            text: Arc::downgrade(&text),
            query: query.map(Arc::downgrade),
            side,
            reply,
        };
        let bytes = text.len() + query.map_or(0, |query| query.len());
        self.jobs.push(lane, job, bytes);
        let gone = |_| {
            Error::unavailable(
                "the tokenizer has stopped",
                std::time::Duration::from_secs(1),
            )
        };
        let result = answer.await.map_err(gone)?;
        drop(text);
        result.map_err(|e| Error::invalid("input", e))
    }
}

impl Drop for TokenizerPool {
    fn drop(&mut self) {
        self.jobs.close();
    }
}
