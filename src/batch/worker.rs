//! The thread that owns a backend: runs batches, checks every number, answers every entry.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use embedgate_core::{Backend, BackendError, EmbeddingBatch, Outputs, TokenBatch};
use embedgate_metrics::ModelMetrics;
use embedgate_request::{Error, Lane, Step};
use tokio::sync::{mpsc, oneshot};

use super::{
    Entry, Row,
    cost::Shape,
    interlude::{Interludes, Left},
};

/// A worker that is free, or will be in a moment, or whose long batch can rest for a short one.
pub(crate) struct Turn {
    /// Takes the next batch, which may be empty. Closed when the worker does not wait for it any more.
    pub(crate) batch: oneshot::Sender<Batch>,
    /// The shape and the time of each batch that was run since the turn before.
    pub(crate) done: Vec<(Shape, Duration)>,
    /// The lane whose short batches may run during the worker's long batch, which can rest.
    pub(crate) beside: Option<Lane>,
}

/// The entries that a worker runs together.
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// Set where it takes so long that others go beside it: queries, or bulk too.
    pub(crate) beside: Option<Lane>,
}

/// The way in which a worker's thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The queue was closed.
    Stopped,
    /// The backend panicked or said that it is lost.
    Lost,
}

pub(crate) struct Worker {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) desk: Desk,
}

/// Everything of a worker but its backend.
pub(crate) struct Desk {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: ModelMetrics,
    /// The channel on which the worker asks for work.
    pub(crate) turns: mpsc::Sender<Turn>,
}

/// A result that is not made of numbers; never leaves the worker as a result.
#[derive(Debug, thiserror::Error)]
#[error("the model gave NaN or infinite values")]
struct NotFinite;

/// The backend cannot be used again.
#[derive(Debug)]
pub(super) struct Lost;

impl Worker {
    /// Starts the thread; how it ends comes through the channel.
    pub(crate) fn start(self) -> io::Result<oneshot::Receiver<Ended>> {
        let (tx, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("worker-{}", self.desk.name))
            .spawn(move || {
                if tx.send(self.work()).is_err() {
                    tracing::debug!("nobody waits for the end of a worker any more");
                }
            })?;
        Ok(ended)
    }

    /// Runs batches until the queue is closed. While one batch's results are handed out, the next is being picked.
    fn work(self) -> Ended {
        let Self { mut backend, desk } = self;
        let mut done = Vec::new();
        let mut scatter: Option<Scatter> = None;
        let mut next: Option<Batch> = None;
        loop {
            let incoming = next.is_none().then(|| desk.ask(std::mem::take(&mut done)));
            if let Some(scatter) = scatter.take()
                && desk.answer(&mut *backend, scatter).is_err()
            {
                return Ended::Lost;
            }
            let batch = match incoming {
                Some(incoming) => incoming.and_then(|incoming| incoming.blocking_recv().ok()),
                None => next.take(),
            };
            let Some(batch) = batch else {
                return Ended::Stopped;
            };
            match desk.run(&mut *backend, batch) {
                Ok(Some(ran)) => {
                    scatter = Some(ran.scatter);
                    done.extend(ran.done);
                    next = ran.next;
                }
                Ok(None) => {}
                Err(Lost) => return Ended::Lost,
            }
        }
    }
}

/// A batch that was run.
pub(super) struct Ran {
    pub(super) scatter: Scatter,
    /// The shape and the time of the batch, and of short batches that ran during it. A failed batch is left out: its
    /// time says nothing of the next batch.
    pub(super) done: Vec<(Shape, Duration)>,
    /// The batch that came too late to run during this one, and goes next.
    pub(super) next: Option<Batch>,
}

impl Desk {
    /// Asks for the next batch; none when the queue is closed.
    fn ask(&self, done: Vec<(Shape, Duration)>) -> Option<oneshot::Receiver<Batch>> {
        let (batch, incoming) = oneshot::channel();
        let turn = Turn {
            batch,
            done,
            beside: None,
        };
        self.turns.blocking_send(turn).ok()?;
        Some(incoming)
    }

    /// Runs a batch; none where nobody waits for it any more. An error means that the backend is lost; then the entries
    /// are dropped, which tells their callers.
    pub(super) fn run(&self, backend: &mut dyn Backend, batch: Batch) -> Result<Option<Ran>, Lost> {
        let Batch {
            mut entries,
            beside,
        } = batch;
        for entry in &entries {
            let wait = entry.since.elapsed();
            entry.spent.add(Step::Queue, wait);
            let lane = entry.admission.lane() as usize;
            self.metrics.queue_seconds[lane].observe(wait.as_secs_f64());
        }
        entries.retain(|entry| !entry.reply.is_closed());
        if entries.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let (results, left) = if let Some(lane) = beside {
            self.run_with_interludes(backend, &entries, lane)?
        } else {
            let (tokens, outputs) = tokens(&entries);
            let run = || backend.embed(&tokens, outputs);
            (self.results(entries.len(), outputs, run)?, Left::default())
        };
        let time = started.elapsed();
        for entry in &entries {
            entry.spent.add(Step::Compute, time);
        }
        let results = match results {
            Ok(results) => Some(results),
            Err(BackendError::Stopped) => None,
            Err(error) => {
                let n = entries.len();
                tracing::warn!(
                    model.name = %self.name, error = %error,
                    "a batch of {n} failed, trying each alone"
                );
                None
            }
        };
        let shape: Shape = entries.iter().map(|entry| entry.ids.len()).collect();
        let own_time = time.saturating_sub(left.rested);
        let mut done = left.done;
        if results.is_some() {
            self.metrics.batch_sequences.observe(shape.n as f64);
            self.metrics.batch_tokens.observe(shape.tokens as f64);
            self.metrics.batch_seconds.observe(own_time.as_secs_f64());
            done.push((shape, own_time));
        }
        Ok(Some(Ran {
            done,
            next: left.next,
            scatter: Scatter { entries, results },
        }))
    }

    /// Runs a long batch, and others beside it.
    fn run_with_interludes(
        &self,
        backend: &mut dyn Backend,
        entries: &[Entry],
        beside: Lane,
    ) -> Result<(Result<EmbeddingBatch, BackendError>, Left), Lost> {
        let (tokens, outputs) = tokens(entries);
        let mut interludes = Interludes::new(self, entries, beside);
        let mut pause = |other: &mut dyn Backend| interludes.pause(other);
        let run = || backend.embed_with_pauses(&tokens, outputs, &mut pause);
        let results = self.results(entries.len(), outputs, run)?;
        Ok((results, interludes.end()?))
    }

    /// Answers each entry. A bad row is tried again alone, and so is every sequence of a batch that failed as a whole: one
    /// bad sequence must not fail the others.
    pub(super) fn answer(&self, backend: &mut dyn Backend, scatter: Scatter) -> Result<(), Lost> {
        let Scatter {
            entries,
            mut results,
        } = scatter;
        for (i, entry) in entries.into_iter().enumerate() {
            let row = results.as_mut().map(|r| Row::take(r, i, entry.outputs));
            match row.filter(Row::is_finite) {
                Some(row) => entry.answer(Ok(row)),
                None => self.run_alone(backend, entry)?,
            }
        }
        Ok(())
    }

    fn run_alone(&self, backend: &mut dyn Backend, entry: Entry) -> Result<(), Lost> {
        if entry.reply.is_closed() {
            return Ok(());
        }
        let (tokens, outputs) = tokens(std::slice::from_ref(&entry));
        let result = match self.results(1, outputs, || backend.embed(&tokens, outputs))? {
            Ok(mut results) => Some(Row::take(&mut results, 0, entry.outputs))
                .filter(Row::is_finite)
                .ok_or_else(|| Error::internal(NotFinite)),
            Err(error) => Err(Error::internal(error)),
        };
        entry.answer(result);
        Ok(())
    }

    /// The results of `n` sequences, complete.
    fn results(
        &self,
        n: usize,
        outputs: Outputs,
        run: impl FnOnce() -> Result<EmbeddingBatch, BackendError>,
    ) -> Result<Result<EmbeddingBatch, BackendError>, Lost> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Err(error @ BackendError::Lost { .. })) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.unwrap_or_default();
                tracing::error!(model.name = %self.name, cause, "model {}: {error}: {cause}", self.name);
                Err(Lost)
            }
            Ok(result) => Ok(result.and_then(|results| complete(results, n, outputs))),
            // The panic itself is in the log already.
            Err(_) => {
                tracing::error!(model.name = %self.name, "the backend of model {} panicked", self.name);
                Err(Lost)
            }
        }
    }
}

/// Builds the batch and the outputs that a backend gets for these entries.
fn tokens(entries: &[Entry]) -> (TokenBatch, Outputs) {
    let mut batch = TokenBatch::new();
    let mut outputs = Outputs::default();
    for entry in entries {
        entry.push_into(&mut batch);
        outputs = outputs.union(entry.outputs);
    }
    (batch, outputs)
}

/// A batch that was run, not yet answered; without results where it failed as a whole.
pub(super) struct Scatter {
    entries: Vec<Entry>,
    results: Option<EmbeddingBatch>,
}

/// Refuses results that are not of every sequence and everything asked for.
fn complete(
    results: EmbeddingBatch,
    n: usize,
    outputs: Outputs,
) -> Result<EmbeddingBatch, BackendError> {
    let dense = results.dense.as_ref().map(embedgate_core::Matrix::rows);
    let sparse = results.sparse.as_ref().map(Vec::len);
    let multi_vector = results.multi_vector.as_ref().map(Vec::len);
    let is_complete = [
        (outputs.dense, dense),
        (outputs.sparse, sparse),
        (outputs.multi_vector, multi_vector),
        (
            outputs.token_vectors,
            results.token_vectors.as_ref().map(Vec::len),
        ),
        (outputs.score, results.scores.as_ref().map(Vec::len)),
    ]
    .iter()
    .all(|(asked, rows)| !asked || *rows == Some(n));
    if is_complete {
        Ok(results)
    } else {
        Err(BackendError::inference(
            "the backend broke its contract",
            "rows are missing",
        ))
    }
}
