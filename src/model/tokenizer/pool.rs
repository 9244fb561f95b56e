//! The threads that tokenize.

mod jobs;

use std::sync::Arc;

use embedgate_request::{Error, Lane, Side, Truncation};
use tokio::sync::oneshot;

use self::jobs::Jobs;
use super::{Cutting, Parts, TextTokenizer, Tokenized, pair::Query};

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
