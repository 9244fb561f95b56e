//! Keeps one replica of a backend working: starts its worker, and loads it again, with growing pauses, when it is lost.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use embedgate_core::Backend;
use embedgate_metrics::ModelMetrics;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    work_request::WorkRequest,
    worker::{Ended, Worker},
    worker_context::WorkerContext,
};

/// The pause before the first attempt to load a lost backend again; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A backend that worked for so long starts with the first pause again.
const STABLE: Duration = Duration::from_secs(120);

/// Loads a backend like the one that was lost. Blocks.
pub(crate) type Reload = Arc<
    dyn Fn() -> Result<Box<dyn Backend>, Box<dyn std::error::Error + Send + Sync>> + Send + Sync,
>;

/// The replicas of a model that work, by their number, and the time of the next attempt to restore one.
#[derive(Clone)]
pub(crate) struct Health {
    working: watch::Sender<usize>,
    next_attempt: Arc<Mutex<Option<Instant>>>,
}

impl Health {
    /// Begins with so many that work.
    pub(crate) fn new(working: usize) -> Self {
        Self {
            working: watch::Sender::new(working),
            next_attempt: Arc::default(),
        }
    }

    /// Counts the replicas that work.
    pub(crate) fn working(&self) -> usize {
        *self.working.borrow()
    }

    /// Waits until no replica works.
    pub(crate) async fn down(&self) {
        // An error cannot be: the sender is here.
        drop(self.working.subscribe().wait_for(|n| *n == 0).await);
    }

    /// Returns the time until the next attempt to restore a replica, but at least the first pause.
    pub(crate) fn retry_after(&self) -> Duration {
        let next = self.next_attempt.lock();
        let next = next.unwrap_or_else(PoisonError::into_inner);
        let left = next.map(|at| at.saturating_duration_since(Instant::now()));
        left.unwrap_or_default().max(FIRST_PAUSE)
    }

    fn set_next_attempt(&self, at: Instant) {
        let next = self.next_attempt.lock();
        *next.unwrap_or_else(PoisonError::into_inner) = Some(at);
    }
}

/// One replica, and what it takes to keep it working.
pub(crate) struct Replica {
    pub(crate) name: Arc<str>,
    pub(crate) reload: Reload,
    pub(crate) health: Health,
    pub(crate) metrics: ModelMetrics,
    pub(crate) work_requests: mpsc::Sender<WorkRequest>,
}

impl Replica {
    /// Works until the queue is closed. Does not return while the worker's thread runs a batch.
    pub(crate) async fn keep_working(self, mut backend: Box<dyn Backend>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let context = WorkerContext {
                name: Arc::clone(&self.name),
                metrics: self.metrics.clone(),
                work_requests: self.work_requests.clone(),
            };
            let worker = Worker { backend, context };
            let since = Instant::now();
            let ended = match worker.start() {
                // A thread that ends without a word panicked, outside of its backend.
                Ok(ended) => ended.await.unwrap_or(Ended::Lost),
                Err(error) => {
                    tracing::error!(error = %error, "the system gives no thread: {error}");
                    Ended::Lost
                }
            };
            if ended == Ended::Stopped {
                return;
            }
            if since.elapsed() > STABLE {
                pause = FIRST_PAUSE;
            }
            self.count(|n| *n -= 1);
            let Some(restored) = self.restore(&mut pause).await else {
                return;
            };
            backend = restored;
            self.metrics.restarts.inc();
            self.count(|n| *n += 1);
            let name = &self.name;
            tracing::info!(model.name = %name, "a backend of model {name} is back");
        }
    }

    fn count(&self, change: impl FnOnce(&mut usize)) {
        self.health.working.send_modify(change);
        self.metrics.ready.set(i64::from(self.health.working() > 0));
    }

    /// Loads the backend again, as often as it takes; none when the queue was closed in the meantime.
    async fn restore(&self, pause: &mut Duration) -> Option<Box<dyn Backend>> {
        loop {
            let name = &self.name;
            self.health.set_next_attempt(Instant::now() + *pause);
            tracing::warn!(
                model.name = %name,
                "a backend of model {name} is down, loading it again in {} s", pause.as_secs()
            );
            tokio::select! {
                () = tokio::time::sleep(*pause) => {}
                () = self.work_requests.closed() => return None,
            }
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            let reload = Arc::clone(&self.reload);
            match tokio::task::spawn_blocking(move || reload()).await {
                Ok(Ok(backend)) => return Some(backend),
                Ok(Err(error)) => {
                    tracing::error!(
                        model.name = %name, error = %error,
                        "model {name} cannot be loaded again: {error}"
                    );
                }
                // The panic itself is in the log already.
                Err(_) => {
                    tracing::error!(model.name = %name, "loading model {name} again panicked")
                }
            }
        }
    }
}
