//! Brings sequences of all requests together into batches for the replicas of one backend.
//!
//! A sequence is admitted with a permit, waits in the queue of its lane, and goes to a worker thread that owns a backend,
//! with neighbours of like length, as soon as a worker is free: there is no timer, load makes batches by itself. The rule
//! that picks a batch is [`queue`] with its [`lane`]s, which know neither clocks nor channels; [`cost`] predicts what a batch takes;
//! `load` decides who may come in; `dispatch` hands batches to workers; `worker` is the thread,
//! `worker_context` runs a batch on it, and `replica` starts it again when it is lost.

pub(crate) mod cost;
mod dispatch;
mod entry;
mod lane;
mod load;
pub(crate) mod queue;
mod refused;
mod replica;
mod start;
mod submit;
mod urgent;
mod work_request;
mod worker;
mod worker_context;

use std::{sync::Arc, time::Duration};

use embedgate_core::{BackendInfo, Outputs};
use embedgate_metrics::ModelMetrics;
use embedgate_request::{Error, Lane, Timings};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use self::{
    cost::CostModel,
    entry::QueueEntry,
    load::QueueLoad,
    queue::Budget,
    refused::{down, overloaded},
    replica::Health,
};
pub(crate) use self::{
    load::{admission::Admission, patience::Patience},
    replica::Reload,
    urgent::Urgent,
};

/// One sequence to run.
pub(crate) struct SequenceWork {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The segment of each token; empty where all are 0.
    pub type_ids: Vec<u32>,
    /// The outputs that are asked of the sequence.
    pub outputs: Outputs,
    /// Moves it to the query lane, whenever it is set.
    pub urgent: Urgent,
    /// The leave to run it.
    pub admission: Admission,
    /// The record of the time that the sequence spends in each step.
    pub timings: Arc<Timings>,
}

/// The settings of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatcherConfig {
    /// Sequences that may wait or run at once.
    pub capacity: usize,
    /// Sequences of the bulk lane that may be among them.
    pub bulk_capacity: usize,
    /// Longest time that the work ahead of a new input may take: for queries, and for bulk.
    pub max_queue_time: [Duration; 2],
    /// The limits of a batch.
    pub budget: Budget,
    /// The prediction of a batch's time.
    pub cost: CostModel,
    /// The speed of the backend at first, in tokens a second.
    pub tokens_per_second: f64,
}

/// The queue of one model, its task and the replicas of its backend.
pub(crate) struct Batcher {
    name: Arc<str>,
    entries: mpsc::Sender<QueueEntry>,
    load: Arc<QueueLoad>,
    health: Health,
    /// Told when a caller leaves, so that the place in the queue is free at once, and when work becomes urgent.
    left: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    /// Closed when all tasks have ended.
    running: watch::Receiver<()>,
}

impl Batcher {
    /// Takes leave for sequences of about so many tokens each, for all or for none.
    ///
    /// # Errors
    /// `Overloaded` when they do not fit, or would wait for too long; `Unavailable` when no replica works.
    pub(crate) fn admit(
        &self,
        tokens: &[usize],
        lane: Lane,
        patience: Patience<'_>,
    ) -> Result<Vec<Admission>, Error> {
        if !tokens.is_empty() && !self.is_healthy() {
            return Err(down(&self.name, &self.health));
        }
        let admitted = self.load.admit(tokens, lane, patience);
        admitted.map_err(|refusal| overloaded(&self.name, refusal, self.most_at_once(lane)))
    }

    /// Returns the largest number of sequences that a lane can ever admit together.
    #[must_use]
    pub(crate) fn most_at_once(&self, lane: Lane) -> usize {
        self.load.most_at_once(lane)
    }

    /// Returns true when at least one replica works.
    #[must_use]
    pub(crate) fn is_healthy(&self) -> bool {
        self.health.working() > 0
    }

    /// Waits until the queue has ended, after its last owner let go of it, and no backend is in memory any more.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut running = self.running.clone();
        async move { while running.changed().await.is_ok() {} }
    }

    /// Shows the tokens that wait or run, and the time that they will take.
    pub(crate) fn show_load(&self, metrics: &ModelMetrics) {
        self.load.show(metrics);
    }

    /// Sequences that wait or run.
    #[must_use]
    pub(crate) fn in_flight(&self) -> usize {
        self.load.in_flight()
    }

    /// Ends the queue and waits for the batches in flight. Blocks; must be called within a tokio runtime, not on one of
    /// its own threads.
    pub(crate) fn stop(self) {
        let Self { entries, tasks, .. } = self;
        drop(entries);
        let runtime = tokio::runtime::Handle::current();
        for task in tasks {
            if let Err(error) = runtime.block_on(task) {
                tracing::error!(error = %error, "a task of a model's queue failed: {error}");
            }
        }
    }
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

#[cfg(test)]
mod tests;
