//! The thread that owns a backend: runs batches, checks every vector, answers every entry.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use embedgate_core::{Backend, BackendError, Matrix, Outputs, TokenBatch};
use tokio::sync::mpsc;

use super::Entry;
use crate::error::Error;

pub(crate) type WorkerBatch = Vec<Entry>;

pub(crate) struct Worker {
    name: Arc<str>,
    backend: Box<dyn Backend>,
    healthy: Arc<AtomicBool>,
}

/// A vector that is not made of numbers; never leaves the worker as a vector.
#[derive(Debug, thiserror::Error)]
#[error("the model gave a vector with NaN or infinite values")]
struct NotFinite;

/// The backend panicked: it cannot be used again.
#[derive(Debug, thiserror::Error)]
#[error("the backend panicked")]
struct Panicked;

impl Worker {
    /// Starts the thread. It asks for work through the second channel, one token a batch, and gets it through the first.
    pub(crate) fn start(
        name: Arc<str>,
        backend: Box<dyn Backend>,
        healthy: Arc<AtomicBool>,
    ) -> std::io::Result<(
        mpsc::Sender<WorkerBatch>,
        mpsc::Receiver<()>,
        JoinHandle<()>,
    )> {
        let (batches, mut incoming) = mpsc::channel::<WorkerBatch>(1);
        let (idle, turns) = mpsc::channel(1);
        let thread_name = format!("worker-{name}");
        let mut worker = Self {
            name,
            backend,
            healthy,
        };
        let work = move || {
            let _mark_down = DownWhenGone(Arc::clone(&worker.healthy));
            while idle.blocking_send(()).is_ok() {
                let Some(batch) = incoming.blocking_recv() else {
                    return;
                };
                if worker.run(batch).is_err() {
                    return;
                }
            }
        };
        let handle = std::thread::Builder::new().name(thread_name).spawn(work)?;
        Ok((batches, turns, handle))
    }

    /// Runs a batch and answers each entry. An error means that the backend is lost; everybody was told.
    fn run(&mut self, mut entries: WorkerBatch) -> Result<(), Panicked> {
        entries.retain(|entry| !entry.reply.is_closed());
        if entries.is_empty() {
            return Ok(());
        }
        let outputs = entries
            .iter()
            .fold(Outputs::default(), |all, entry| all.union(entry.outputs));
        let batch: TokenBatch = entries.iter().map(|entry| entry.ids.as_slice()).collect();
        let rows = match self.embed(&batch, outputs) {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return self.run_each(entries, &error),
            Err(panicked) => return Err(panicked),
        };
        for (i, entry) in entries.into_iter().enumerate() {
            let row = rows.row(i);
            if is_finite(row) {
                answer(entry, Ok(row.to_vec()));
            } else {
                self.run_alone(entry)?;
            }
        }
        Ok(())
    }

    /// A batch failed as a whole: each sequence is tried alone, so that one bad one does not fail the others.
    fn run_each(&mut self, entries: WorkerBatch, error: &BackendError) -> Result<(), Panicked> {
        let n = entries.len();
        tracing::warn!(model.name = %self.name, error = %error, "a batch of {n} failed, trying each alone");
        entries
            .into_iter()
            .try_for_each(|entry| self.run_alone(entry))
    }

    fn run_alone(&mut self, entry: Entry) -> Result<(), Panicked> {
        if entry.reply.is_closed() {
            return Ok(());
        }
        let batch: TokenBatch = std::iter::once(entry.ids.as_slice()).collect();
        let result = match self.embed(&batch, entry.outputs)? {
            Ok(rows) if is_finite(rows.row(0)) => Ok(rows.data),
            Ok(_) => Err(Error::internal(NotFinite)),
            Err(error) => Err(Error::internal(error)),
        };
        answer(entry, result);
        Ok(())
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<Result<Matrix, BackendError>, Panicked> {
        let result = catch_unwind(AssertUnwindSafe(|| self.backend.embed(batch, outputs)));
        let Ok(result) = result else {
            self.healthy.store(false, Ordering::Release);
            tracing::error!(model.name = %self.name, "the backend of model {} panicked: it answers 503 from now on", self.name);
            return Err(Panicked);
        };
        let missing = || BackendError::inference("the backend broke its contract", "no dense rows");
        Ok(result.and_then(|rows| {
            rows.dense
                .filter(|rows| rows.rows() == batch.len())
                .ok_or_else(missing)
        }))
    }
}

/// However the thread ends, callers must not wait for it.
struct DownWhenGone(Arc<AtomicBool>);

impl Drop for DownWhenGone {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn is_finite(row: &[f32]) -> bool {
    row.iter().all(|x| x.is_finite())
}

/// Sends the answer; an error means that the caller left. The permit goes free before the caller hears of it.
fn answer(entry: Entry, result: Result<Vec<f32>, Error>) {
    let Entry {
        reply, admission, ..
    } = entry;
    drop(admission);
    drop(reply.send(result));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use embedgate_mock::{FAIL_TOKEN, MockBackend, NAN_IN_COMPANY_TOKEN, NAN_TOKEN, PANIC_TOKEN};

    use super::super::Batcher;
    use super::*;
    use crate::error::ErrorKind;

    fn start(capacity: usize) -> (Arc<Batcher>, embedgate_mock::Control) {
        let (backend, control) = MockBackend::new(8);
        (
            Arc::new(Batcher::start("mock", Box::new(backend), capacity, 64).unwrap()),
            control,
        )
    }

    async fn embed(batcher: &Batcher, ids: &[u32]) -> Result<Vec<f32>, Error> {
        let admission = batcher.admit(1)?;
        batcher.embed(ids.to_vec(), Outputs::DENSE, admission).await
    }

    /// Holds the worker at the gate with one sequence, queues the others behind it, then lets go.
    async fn together(
        batcher: &Arc<Batcher>,
        control: &embedgate_mock::Control,
        all: &[&[u32]],
    ) -> Vec<Result<Vec<f32>, Error>> {
        control.close();
        let spawn = |ids: &[u32]| {
            let (batcher, ids) = (Arc::clone(batcher), ids.to_vec());
            tokio::spawn(async move { embed(&batcher, &ids).await })
        };
        let first = spawn(&[1]);
        let waiting = control.clone();
        tokio::task::spawn_blocking(move || waiting.wait_for_batch())
            .await
            .unwrap();
        let rest: Vec<_> = all.iter().map(|ids| spawn(ids)).collect();
        while batcher.in_flight() < all.len() + 1 {
            tokio::task::yield_now().await;
        }
        // All are in the channel now, and the batcher's task empties that before it looks at the worker again.
        control.open();
        first.await.unwrap().unwrap();
        let mut results = Vec::new();
        for task in rest {
            results.push(task.await.unwrap());
        }
        results
    }

    #[tokio::test]
    async fn sequences_of_many_callers_share_a_batch_and_each_gets_its_own_row() {
        let (batcher, control) = start(16);
        let results = together(&batcher, &control, &[&[5, 6], &[7], &[8, 9, 10]]).await;
        for (result, ids) in results.into_iter().zip([&[5, 6][..], &[7], &[8, 9, 10]]) {
            assert_eq!(result.unwrap(), MockBackend::vector(ids, 8));
        }
        assert_eq!(control.batches().len(), 2, "{:?}", control.batches());
    }

    #[tokio::test]
    async fn a_bad_row_is_retried_alone_and_fails_only_its_own_caller() {
        let (batcher, control) = start(16);
        let results = together(
            &batcher,
            &control,
            &[&[5], &[NAN_TOKEN], &[NAN_IN_COMPANY_TOKEN, 3]],
        )
        .await;
        assert!(results[0].is_ok());
        assert_eq!(results[1].as_ref().unwrap_err().kind, ErrorKind::Internal);
        assert_eq!(
            results[2].as_ref().unwrap(),
            &MockBackend::vector(&[NAN_IN_COMPANY_TOKEN, 3], 8)
        );
    }

    #[tokio::test]
    async fn a_failing_batch_fails_only_the_sequence_that_makes_it_fail() {
        let (batcher, control) = start(16);
        let results = together(&batcher, &control, &[&[5], &[FAIL_TOKEN], &[6]]).await;
        assert!(results[0].is_ok() && results[2].is_ok());
        assert_eq!(results[1].as_ref().unwrap_err().kind, ErrorKind::Internal);
        assert!(batcher.is_healthy());
    }

    #[tokio::test]
    async fn after_a_panic_everybody_is_told_at_once() {
        let (batcher, control) = start(16);
        let results = together(&batcher, &control, &[&[PANIC_TOKEN], &[6]]).await;
        for result in results {
            assert_eq!(result.unwrap_err().kind, ErrorKind::Unavailable);
        }
        assert!(!batcher.is_healthy());
        assert_eq!(
            embed(&batcher, &[1]).await.unwrap_err().kind,
            ErrorKind::Unavailable
        );
    }

    #[tokio::test]
    async fn inputs_are_admitted_all_or_none() {
        let (batcher, _control) = start(4);
        let three = batcher.admit(3).unwrap();
        let error = batcher.admit(2).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Overloaded);
        assert!(
            error
                .retry_after
                .is_some_and(|after| after > Duration::ZERO)
        );
        assert_eq!(batcher.in_flight(), 3);
        drop(three);
        assert_eq!(batcher.in_flight(), 0);
        assert!(batcher.admit(4).is_ok());
    }

    #[tokio::test]
    async fn who_leaves_gives_the_permit_back_and_costs_no_work() {
        let (batcher, control) = start(16);
        control.close();
        let first = tokio::spawn({
            let batcher = Arc::clone(&batcher);
            async move { embed(&batcher, &[1]).await }
        });
        let waiting = control.clone();
        tokio::task::spawn_blocking(move || waiting.wait_for_batch())
            .await
            .unwrap();
        let left = tokio::spawn({
            let batcher = Arc::clone(&batcher);
            async move { embed(&batcher, &[2]).await }
        });
        while batcher.in_flight() < 2 {
            tokio::task::yield_now().await;
        }
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        control.open();
        first.await.unwrap().unwrap();
        embed(&batcher, &[3]).await.unwrap();
        assert_eq!(control.batches(), [vec![vec![1]], vec![vec![3]]]);
        assert_eq!(batcher.in_flight(), 0);
    }
}
