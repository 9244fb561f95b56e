//! Runs a batch on a worker's backend, and answers every entry.
//!
//! `side_batches` runs short batches while a long batch rests; `results` checks what a backend gives.

mod results;
mod side_batches;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embedgate_core::{Backend, BackendError, EmbeddingBatch, Outputs, Row, TokenBatch};
use embedgate_metrics::ModelMetrics;
use embedgate_request::{BatchRun, Error, Lane, Step};
use tokio::sync::{mpsc, oneshot};

use self::side_batches::{Leftover, SideBatches};
use super::{
    cost::BatchShape,
    entry::QueueEntry,
    work_request::{Batch, WorkRequest},
};

/// Everything of a worker but its backend.
pub(crate) struct WorkerContext {
    pub(crate) name: Arc<str>,
    pub(crate) metrics: ModelMetrics,
    /// The channel on which the worker asks for work.
    pub(crate) work_requests: mpsc::Sender<WorkRequest>,
}

/// A batch that was run.
pub(super) struct BatchResult {
    pub(super) replies: PendingReplies,
    /// The shape and the time of the batch, and of short batches that ran during it. A failed batch is left out: its
    /// time says nothing of the next batch.
    pub(super) done: Vec<(BatchShape, Duration)>,
    /// The batch that came too late to run during this one, and goes next.
    pub(super) next: Option<Batch>,
}

/// A batch that was run, not yet answered; without results where it failed as a whole.
pub(super) struct PendingReplies {
    entries: Vec<QueueEntry>,
    results: Option<EmbeddingBatch>,
}

/// The backend cannot be used again.
#[derive(Debug)]
pub(super) struct Lost;

/// A result that is not made of numbers; never leaves the worker as a result.
#[derive(Debug, thiserror::Error)]
#[error("the model gave NaN or infinite values")]
struct NotFinite;

impl WorkerContext {
    /// Asks for the next batch; none when the queue is closed.
    pub(super) fn ask(
        &self,
        done: Vec<(BatchShape, Duration)>,
    ) -> Option<oneshot::Receiver<Batch>> {
        let (batch, incoming) = oneshot::channel();
        let request = WorkRequest {
            batch,
            done,
            beside: None,
        };
        self.work_requests.blocking_send(request).ok()?;
        Some(incoming)
    }

    /// Runs a batch; none where nobody waits for it any more. An error means that the backend is lost; then the entries
    /// are dropped, which tells their callers.
    pub(super) fn run(
        &self,
        backend: &mut dyn Backend,
        batch: Batch,
    ) -> Result<Option<BatchResult>, Lost> {
        let Batch {
            mut entries,
            beside,
        } = batch;
        for entry in &entries {
            let now = Instant::now();
            entry.timings.add(Step::Queue, entry.since, now);
            let lane = entry.admission.lane() as usize;
            let wait = now.saturating_duration_since(entry.since);
            self.metrics.queue_seconds[lane].observe(wait.as_secs_f64());
        }
        entries.retain(|entry| !entry.reply.is_closed());
        if entries.is_empty() {
            return Ok(None);
        }
        let started = Instant::now();
        let (results, left) = if let Some(lane) = beside {
            self.run_with_side_batches(backend, &entries, lane)?
        } else {
            let (tokens, outputs) = tokens(&entries);
            let run = || backend.embed(&tokens, outputs);
            (
                self.results(entries.len(), outputs, run)?,
                Leftover::default(),
            )
        };
        let ended = Instant::now();
        let time = ended.saturating_duration_since(started);
        let shape: BatchShape = entries.iter().map(|entry| entry.ids.len()).collect();
        let is_traced = entries.iter().any(|entry| entry.timings.is_traced());
        let run = is_traced.then(|| {
            let model = Arc::clone(&self.name);
            Arc::new(BatchRun::new(model, started, shape.n, shape.tokens))
        });
        for entry in &entries {
            entry.timings.add_batch(started, ended, run.as_ref());
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
        let own_time = time.saturating_sub(left.rested);
        let mut done = left.done;
        if results.is_some() {
            self.metrics.batch_sequences.observe(shape.n as f64);
            self.metrics.batch_tokens.observe(shape.tokens as f64);
            self.metrics.batch_seconds.observe(own_time.as_secs_f64());
            done.push((shape, own_time));
        }
        Ok(Some(BatchResult {
            done,
            next: left.next,
            replies: PendingReplies { entries, results },
        }))
    }

    /// Runs a long batch, and others beside it.
    fn run_with_side_batches(
        &self,
        backend: &mut dyn Backend,
        entries: &[QueueEntry],
        beside: Lane,
    ) -> Result<(Result<EmbeddingBatch, BackendError>, Leftover), Lost> {
        let (tokens, outputs) = tokens(entries);
        let mut side_batches = SideBatches::new(self, entries, beside);
        let mut pause = |other: &mut dyn Backend| side_batches.pause(other);
        let run = || backend.embed_with_pauses(&tokens, outputs, &mut pause);
        let results = self.results(entries.len(), outputs, run)?;
        Ok((results, side_batches.end()?))
    }

    /// Answers each entry. A bad row is tried again alone, and so is every sequence of a batch that failed as a whole: one
    /// bad sequence must not fail the others.
    pub(super) fn answer(
        &self,
        backend: &mut dyn Backend,
        replies: PendingReplies,
    ) -> Result<(), Lost> {
        let PendingReplies {
            entries,
            mut results,
        } = replies;
        for (i, entry) in entries.into_iter().enumerate() {
            let row = results.as_mut().map(|r| r.take_row(i, entry.outputs));
            match row.filter(Row::is_finite) {
                Some(row) => entry.answer(Ok(row)),
                None => self.run_alone(backend, entry)?,
            }
        }
        Ok(())
    }

    fn run_alone(&self, backend: &mut dyn Backend, entry: QueueEntry) -> Result<(), Lost> {
        if entry.reply.is_closed() {
            return Ok(());
        }
        let (tokens, outputs) = tokens(std::slice::from_ref(&entry));
        let result = match self.results(1, outputs, || backend.embed(&tokens, outputs))? {
            Ok(mut results) => Some(results.take_row(0, entry.outputs))
                .filter(Row::is_finite)
                .ok_or_else(|| Error::internal(NotFinite)),
            Err(error) => Err(Error::internal(error)),
        };
        entry.answer(result);
        Ok(())
    }
}

/// Builds the batch and the outputs that a backend gets for these entries.
fn tokens(entries: &[QueueEntry]) -> (TokenBatch, Outputs) {
    let mut batch = TokenBatch::new();
    let mut outputs = Outputs::default();
    for entry in entries {
        entry.push_into(&mut batch);
        outputs = outputs.union(entry.outputs);
    }
    (batch, outputs)
}
