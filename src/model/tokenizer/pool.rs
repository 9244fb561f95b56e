//! The threads that tokenize, and the texts that wait for them.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use embedgate_request::{Error, Lane, Side, Truncation};
use tokio::sync::oneshot;

use super::{Cutting, Parts, Query, TextTokenizer, Tokenized};

/// Work on a text. It holds the text weakly: what waits here takes no memory for who left. (That of a `Weak<str>` would
/// stay.)
type Job = Box<dyn FnOnce(&TextTokenizer) + Send>;

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

/// The code of a text that the tokenizer refuses.
pub(crate) const TOKENIZER: &str = "tokenizer";

/// Tokenizer threads of one model; they end when the pool is dropped.
pub(crate) struct TokenizerPool {
    jobs: Arc<Jobs>,
}

impl TokenizerPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        model: &str,
        tokenizer: &TextTokenizer,
        threads: usize,
    ) -> std::io::Result<Self> {
        let pool = Self {
            jobs: Arc::default(),
        };
        for i in 0..threads {
            let (jobs, tokenizer) = (Arc::clone(&pool.jobs), tokenizer.clone());
            let long_too = i > 0 || threads == 1;
            let work = move || {
                while let Some(job) = jobs.next(long_too) {
                    job(&tokenizer);
                }
            };
            std::thread::Builder::new()
                .name(format!("tokenizer-{i}-{model}"))
                .spawn(work)?;
        }
        Ok(pool)
    }

    /// Tokenizes one text, cut on one side.
    ///
    /// # Errors
    /// As [`TokenizerPool::run`].
    pub(crate) async fn encode(
        &self,
        text: Arc<String>,
        truncation: Truncation,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        let weak = Arc::downgrade(&text);
        let encode = move |tokenizer: &TextTokenizer, given_up: &dyn Fn() -> bool| {
            tokenizer.encode_unless(&weak.upgrade().unwrap_or_default(), truncation, given_up)
        };
        self.run(text.len(), lane, encode).await
    }

    /// Tokenizes a query, for [`TokenizerPool::encode_pair`].
    ///
    /// # Errors
    /// As [`TokenizerPool::run`].
    pub(crate) async fn encode_query(
        &self,
        query: Arc<String>,
        lane: Lane,
    ) -> Result<Query, Error> {
        let weak = Arc::downgrade(&query);
        let encode = move |tokenizer: &TextTokenizer, given_up: &dyn Fn() -> bool| {
            tokenizer.encode_query_unless(&weak.upgrade().unwrap_or_default(), given_up)
        };
        self.run(query.len(), lane, encode).await
    }

    /// Tokenizes a text beside a query, cut on one side.
    ///
    /// # Errors
    /// As [`TokenizerPool::run`].
    pub(crate) async fn encode_pair(
        &self,
        query: &Arc<Query>,
        text: Arc<String>,
        side: Side,
        lane: Lane,
    ) -> Result<Tokenized, Error> {
        let (weak, weak_query) = (Arc::downgrade(&text), Arc::downgrade(query));
        let encode = move |tokenizer: &TextTokenizer, given_up: &dyn Fn() -> bool| {
            let text = weak.upgrade().unwrap_or_default();
            let query = weak_query.upgrade().ok_or("the caller left")?;
            tokenizer.encode_pair_unless(&query, &text, side, given_up)
        };
        self.run(text.len(), lane, encode).await
    }

    /// Cuts a text into parts.
    ///
    /// # Errors
    /// As [`TokenizerPool::run`].
    pub(crate) async fn parts(
        &self,
        text: &Arc<String>,
        cutting: Cutting,
        lane: Lane,
    ) -> Result<Parts, Error> {
        let weak = Arc::downgrade(text);
        let cut = move |tokenizer: &TextTokenizer, given_up: &dyn Fn() -> bool| {
            tokenizer.parts_unless(&weak.upgrade().unwrap_or_default(), cutting, given_up)
        };
        self.run(text.len(), lane, cut).await
    }

    /// Runs work on a text of so many bytes, unless the caller leaves before: then it is told to give up.
    ///
    /// # Errors
    /// `InvalidRequest` when the tokenizer refuses the text; `Unavailable` when the threads are gone.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        lane: Lane,
        work: impl FnOnce(&TextTokenizer, &dyn Fn() -> bool) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |tokenizer: &TextTokenizer| {
            if !reply.is_closed() {
                let result = work(tokenizer, &|| reply.is_closed());
                // An error means that the caller left in the meantime.
                drop(reply.send(result));
            }
        });
        self.jobs.push(lane, job, bytes);
        let gone = |_| {
            Error::unavailable(
                "the tokenizer has stopped",
                std::time::Duration::from_secs(1),
            )
        };
        let result = answer.await.map_err(gone)?;
        result.map_err(|e| Error::invalid("input", e).with_code(TOKENIZER))
    }
}

impl Drop for TokenizerPool {
    fn drop(&mut self) {
        self.jobs.close();
    }
}
