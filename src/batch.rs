//! Brings sequences of all requests together into batches for one backend.
//!
//! A sequence is admitted with a permit, waits in the queue, and goes to the worker thread that owns the backend, with
//! neighbours of like length, as soon as the worker is free: there is no timer, load makes batches by itself. The rule
//! that picks a batch is [`queue`], which knows neither clocks nor channels; [`worker`] is the thread.

pub mod queue;
pub mod worker;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use embedgate_core::{Backend, BackendInfo, Outputs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::{
    queue::BatchQueue,
    worker::{Worker, WorkerBatch},
};
use crate::error::{Error, ErrorKind};

/// What is asked of callers whose inputs do not fit: the drain rate is not measured yet.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Leave to put some sequences into the queue, and the bound on how many there are.
pub struct Admission {
    permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Takes the leave for one sequence out. None when all are taken.
    pub fn take_one(&mut self) -> Option<Admission> {
        self.permit.split(1).map(|permit| Self { permit })
    }
}

/// One sequence on its way.
pub(crate) struct Entry {
    pub(crate) ids: Vec<u32>,
    pub(crate) outputs: Outputs,
    pub(crate) reply: oneshot::Sender<Result<Vec<f32>, Error>>,
    /// Held until the reply is sent.
    pub(crate) admission: Admission,
}

/// The queue of one backend, its task and its worker thread.
pub struct Batcher {
    name: Arc<str>,
    entries: mpsc::Sender<Entry>,
    permits: Arc<Semaphore>,
    capacity: usize,
    healthy: Arc<AtomicBool>,
    worker: JoinHandle<()>,
}

impl Batcher {
    /// Starts the task and the worker thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        name: &str,
        backend: Box<dyn Backend>,
        capacity: usize,
        max_batch_tokens: usize,
    ) -> std::io::Result<Self> {
        let name: Arc<str> = name.into();
        let healthy = Arc::new(AtomicBool::new(true));
        let (entries, incoming) = mpsc::channel(capacity);
        let queue = BatchQueue::new(backend.info().layout, max_batch_tokens);
        let (batches, idle, worker) =
            Worker::start(Arc::clone(&name), backend, Arc::clone(&healthy))?;
        tokio::spawn(run(incoming, queue, batches, idle));
        let permits = Arc::new(Semaphore::new(capacity));
        Ok(Self {
            name,
            entries,
            permits,
            capacity,
            healthy,
            worker,
        })
    }

    /// Takes leave for `n` sequences at once, or for none.
    ///
    /// # Errors
    /// `Overloaded` when they do not fit; `Unavailable` when the worker has died.
    pub fn admit(&self, n: usize) -> Result<Admission, Error> {
        if n > 0 && !self.is_healthy() {
            return Err(self.down());
        }
        let permits = u32::try_from(n).unwrap_or(u32::MAX);
        let admitted = Arc::clone(&self.permits).try_acquire_many_owned(permits);
        let permit = admitted.map_err(|_| Error {
            retry_after: Some(RETRY_AFTER),
            ..Error::new(
                ErrorKind::Overloaded,
                format!(
                    "the queue of model \"{}\" is full ({} inputs): try again later",
                    self.name, self.capacity
                ),
            )
        })?;
        Ok(Admission { permit })
    }

    /// Runs one sequence and returns its pooled vector. Dropping the future drops the sequence, unless it runs already.
    ///
    /// # Errors
    /// `Internal` when the backend fails on it; `Unavailable` when the worker has died.
    pub async fn embed(
        &self,
        ids: Vec<u32>,
        outputs: Outputs,
        admission: Admission,
    ) -> Result<Vec<f32>, Error> {
        let (reply, answer) = oneshot::channel();
        self.entries
            .send(Entry {
                ids,
                outputs,
                reply,
                admission,
            })
            .await
            .map_err(|_| self.down())?;
        answer.await.map_err(|_| self.down())?
    }

    /// Whether the worker is alive.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    /// Sequences that wait or run.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.capacity - self.permits.available_permits()
    }

    /// Ends the queue and waits for the worker's batch in flight. Blocks.
    pub fn stop(self) {
        let Self {
            entries, worker, ..
        } = self;
        drop(entries);
        if worker.join().is_err() {
            tracing::error!("a worker thread panicked outside of its backend");
        }
    }

    fn down(&self) -> Error {
        let message = format!(
            "model \"{}\" is down after a fault in its backend: restart embedgate",
            self.name
        );
        Error::unavailable(message, Duration::from_secs(30)).with_code("model_unavailable")
    }
}

/// Collects entries while the worker is busy; hands it a batch whenever it is idle.
async fn run(
    mut incoming: mpsc::Receiver<Entry>,
    mut queue: BatchQueue<Entry>,
    batches: mpsc::Sender<WorkerBatch>,
    mut idle: mpsc::Receiver<()>,
) {
    loop {
        if queue.is_empty() {
            let Some(entry) = incoming.recv().await else {
                return;
            };
            push(&mut queue, entry);
        }
        tokio::select! {
            // Whatever has arrived joins the queue before the next batch is picked.
            biased;
            Some(entry) = incoming.recv() => push(&mut queue, entry),
            turn = idle.recv() => {
                if turn.is_none() {
                    return;
                }
                queue.discard(|entry| entry.reply.is_closed());
                let batch = queue.next_batch();
                // An empty batch gives the turn back at once. An error means that the worker died: entries are dropped.
                if batches.send(batch).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn push(queue: &mut BatchQueue<Entry>, entry: Entry) {
    queue.push(entry.ids.len(), entry);
}

/// Facts for the log.
pub(crate) fn describe(info: &BackendInfo) -> String {
    format!(
        "{} on {} in {}, {} dimensions, {} tokens at most, gives {}",
        info.backend,
        info.device,
        info.precision,
        info.dimensions,
        info.max_sequence_tokens,
        info.outputs
    )
}
