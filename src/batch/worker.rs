//! The thread that owns a backend: runs batches, checks every number, answers every entry.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use embedgate_core::{Backend, BackendError, EmbeddingBatch, Outputs, TokenBatch};
use tokio::sync::{mpsc, oneshot};

use super::{Entry, Row, cost::Shape};
use crate::{error::Error, metrics::ModelMetrics, spent::Step};

/// A worker that is free, or will be in a moment.
pub(crate) struct Turn {
    /// Takes the next batch, which may be empty. Closed when the worker has died since.
    pub(crate) batch: oneshot::Sender<Vec<Entry>>,
    /// What the batch before took.
    pub(crate) done: Option<(Shape, Duration)>,
}

/// How a worker's thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The queue was closed.
    Stopped,
    /// The backend panicked or said that it is lost.
    Lost,
}

pub(crate) struct Worker {
    pub(crate) name: Arc<str>,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) metrics: ModelMetrics,
    /// Where it asks for work.
    pub(crate) turns: mpsc::Sender<Turn>,
}

/// A result that is not made of numbers; never leaves the worker as a result.
#[derive(Debug, thiserror::Error)]
#[error("the model gave NaN or infinite values")]
struct NotFinite;

/// The backend cannot be used again.
struct Lost;

impl Worker {
    /// Starts the thread; how it ends comes through the channel.
    pub(crate) fn start(self) -> io::Result<oneshot::Receiver<Ended>> {
        let (tx, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("worker-{}", self.name))
            .spawn(move || {
                if tx.send(self.work()).is_err() {
                    tracing::debug!("nobody waits for the end of a worker any more");
                }
            })?;
        Ok(ended)
    }

    /// Runs batches until the queue is closed. While one batch's results are handed out, the next is being picked.
    fn work(mut self) -> Ended {
        let mut done = None;
        let mut scatter: Option<Scatter> = None;
        loop {
            let (batch, incoming) = oneshot::channel();
            let turn = Turn {
                batch,
                done: done.take(),
            };
            let stopped = self.turns.blocking_send(turn).is_err();
            if let Some(scatter) = scatter.take()
                && self.answer(scatter).is_err()
            {
                return Ended::Lost;
            }
            if stopped {
                return Ended::Stopped;
            }
            let Ok(mut entries) = incoming.blocking_recv() else {
                return Ended::Stopped;
            };
            entries.retain(|entry| !entry.reply.is_closed());
            if entries.is_empty() {
                continue;
            }
            let started = Instant::now();
            let shape: Shape = entries.iter().map(|entry| entry.ids.len()).collect();
            let ran = match self.run(entries) {
                Ok(ran) => ran,
                Err(Lost) => return Ended::Lost,
            };
            let time = started.elapsed();
            for entry in &ran.entries {
                entry.spent.add(Step::Compute, time);
            }
            let has_results = ran.results.is_some();
            scatter = Some(ran);
            if !has_results {
                // The time of a failure says nothing of the next batch.
                continue;
            }
            self.metrics.batch_sequences.observe(shape.n as f64);
            self.metrics.batch_tokens.observe(shape.tokens as f64);
            self.metrics.batch_seconds.observe(time.as_secs_f64());
            done = Some((shape, time));
        }
    }

    /// Runs a batch. An error means that the backend is lost; then the entries are dropped, which tells their callers.
    fn run(&mut self, entries: Vec<Entry>) -> Result<Scatter, Lost> {
        let outputs = entries
            .iter()
            .fold(Outputs::default(), |all, entry| all.union(entry.outputs));
        let mut batch = TokenBatch::new();
        for entry in &entries {
            entry.push_into(&mut batch);
        }
        let results = match self.embed(&batch, outputs)? {
            Ok(results) => Some(results),
            Err(error) => {
                let n = entries.len();
                tracing::warn!(
                    model.name = %self.name, error = %error,
                    "a batch of {n} failed, trying each alone"
                );
                None
            }
        };
        Ok(Scatter { entries, results })
    }

    /// Answers each entry. A bad row is tried again alone, and so is every sequence of a batch that failed as a whole: one
    /// bad sequence must not fail the others.
    fn answer(&mut self, scatter: Scatter) -> Result<(), Lost> {
        let Scatter {
            entries,
            mut results,
        } = scatter;
        for (i, entry) in entries.into_iter().enumerate() {
            let row = results.as_mut().map(|r| Row::take(r, i, entry.outputs));
            match row.filter(Row::is_finite) {
                Some(row) => entry.answer(Ok(row)),
                None => self.run_alone(entry)?,
            }
        }
        Ok(())
    }

    fn run_alone(&mut self, entry: Entry) -> Result<(), Lost> {
        if entry.reply.is_closed() {
            return Ok(());
        }
        let mut batch = TokenBatch::new();
        entry.push_into(&mut batch);
        let result = match self.embed(&batch, entry.outputs)? {
            Ok(mut results) => Some(Row::take(&mut results, 0, entry.outputs))
                .filter(Row::is_finite)
                .ok_or_else(|| Error::internal(NotFinite)),
            Err(error) => Err(Error::internal(error)),
        };
        entry.answer(result);
        Ok(())
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<Result<EmbeddingBatch, BackendError>, Lost> {
        let result = catch_unwind(AssertUnwindSafe(|| self.backend.embed(batch, outputs)));
        match result {
            Ok(Err(error @ BackendError::Lost { .. })) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.unwrap_or_default();
                tracing::error!(model.name = %self.name, cause, "model {}: {error}: {cause}", self.name);
                Err(Lost)
            }
            Ok(result) => Ok(result.and_then(|results| complete(results, batch.len(), outputs))),
            // The panic itself is in the log already.
            Err(_) => {
                tracing::error!(model.name = %self.name, "the backend of model {} panicked", self.name);
                Err(Lost)
            }
        }
    }
}

/// A batch that was run, not yet answered; without results where it failed as a whole.
struct Scatter {
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
