//! Brings sequences of all requests together into batches for the replicas of one backend.
//!
//! A sequence is admitted with a permit, waits in the queue of its lane, and goes to a worker thread that owns a backend,
//! with neighbours of like length, as soon as a worker is free: there is no timer, load makes batches by itself. The rule
//! that picks a batch is [`queue`] with its [`lane`]s, which know neither clocks nor channels; [`cost`] predicts what a batch takes;
//! `load` decides who may come in; `dispatch` hands batches to workers; `worker` is the thread, `interlude` what it does
//! while a long batch rests, and `replica` starts it again when it is lost.

pub(crate) mod cost;
mod dispatch;
mod interlude;
mod lane;
mod load;
mod promises;
pub(crate) mod queue;
mod replica;
mod row;
mod urgent;
mod worker;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use embedgate_core::{Backend, BackendInfo, Outputs, TokenBatch};
use embedgate_metrics::ModelMetrics;
use embedgate_request::{Error, ErrorKind, Lane, Spent};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
};

use self::{
    cost::CostModel,
    dispatch::Dispatcher,
    load::{Load, Refusal},
    queue::{BatchQueue, Budget},
    replica::{Health, Replica},
};
pub(crate) use self::{
    load::{Admission, Patience},
    replica::Reload,
    row::Row,
    urgent::Urgent,
};

/// One sequence to run.
pub(crate) struct Work {
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
    pub spent: Arc<Spent>,
}

/// One sequence on its way.
pub(crate) struct Entry {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    outputs: Outputs,
    urgent: Urgent,
    since: Instant,
    spent: Arc<Spent>,
    reply: oneshot::Sender<Result<Row, Error>>,
    /// Held until the reply is sent.
    admission: Admission,
}

impl Entry {
    /// The lane that it is in now.
    fn lane(&self) -> Lane {
        if self.urgent.is_set() {
            Lane::Query
        } else {
            self.admission.lane()
        }
    }

    fn push_into(&self, batch: &mut TokenBatch) {
        if self.type_ids.is_empty() {
            batch.push(&self.ids);
        } else {
            batch.push_pair(&self.ids, &self.type_ids);
        }
    }

    /// Sends the answer; an error means that the caller left. The permit goes free before the caller hears of it.
    fn answer(self, result: Result<Row, Error>) {
        let Self {
            reply, admission, ..
        } = self;
        drop(admission);
        drop(reply.send(result));
    }
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
    entries: mpsc::Sender<Entry>,
    load: Arc<Load>,
    health: Health,
    /// Told when a caller leaves, so that the place in the queue is free at once, and when work becomes urgent.
    left: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    /// Closed when all tasks have ended.
    running: watch::Receiver<()>,
}

/// Tells the queue that a caller left, unless the answer came.
struct TellIfLeft<'a>(Option<&'a Notify>);

impl Drop for TellIfLeft<'_> {
    fn drop(&mut self) {
        if let Some(left) = self.0 {
            left.notify_one();
        }
    }
}

impl Batcher {
    /// Starts the task and a worker thread for each backend. Must be called within a tokio runtime.
    ///
    /// Beside each backend is what makes one like it when it is lost.
    #[must_use]
    pub(crate) fn start(
        name: &str,
        backends: Vec<(Box<dyn Backend>, Reload)>,
        config: BatcherConfig,
        metrics: &ModelMetrics,
    ) -> Self {
        let name: Arc<str> = name.into();
        let can_pause = backends.iter().all(|(backend, _)| backend.can_pause());
        let mut queue = BatchQueue::new(config.budget, config.cost);
        if can_pause {
            queue = queue.with_pauses();
        }
        let load = Load::new(
            config.capacity,
            config.bulk_capacity,
            config.tokens_per_second * backends.len() as f64,
        );
        let [query, bulk] = config.max_queue_time;
        let load = Arc::new(load.with_max_queue_time(|lane| match lane {
            Lane::Query => query,
            Lane::Bulk => bulk,
        }));
        load.set_most_beside(queue.most_beside());
        let health = Health::new(backends.len());
        metrics.ready.set(1);
        let (entries, incoming) = mpsc::channel(config.capacity);
        let left = Arc::new(Notify::new());
        // A worker's turn, one that it asked for beside a long batch that has ended since, and that of the worker that takes
        // its place when it is lost: nobody reads them while the queue is empty.
        let (turns_tx, turns) = mpsc::channel(3 * backends.len().max(1));
        let dispatcher = Dispatcher {
            name: Arc::clone(&name),
            queue,
            load: Arc::clone(&load),
            health: health.clone(),
            left: Arc::clone(&left),
            metrics: metrics.clone(),
            started: Instant::now(),
            resting: Vec::new(),
        };
        let (lease, running) = watch::channel(());
        let lease = Arc::new(lease);
        let mut tasks = vec![tokio::spawn(dispatcher.run(incoming, turns))];
        for (backend, reload) in backends {
            let replica = Replica {
                name: Arc::clone(&name),
                reload,
                health: health.clone(),
                metrics: metrics.clone(),
                turns: turns_tx.clone(),
            };
            let lease = Arc::clone(&lease);
            tasks.push(tokio::spawn(async move {
                replica.keep_working(backend).await;
                drop(lease);
            }));
        }
        Self {
            name,
            entries,
            load,
            health,
            left,
            tasks,
            running,
        }
    }

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
        self.load
            .admit(tokens, lane, patience)
            .map_err(|refusal| self.overloaded(refusal, lane))
    }

    /// Returns the largest number of sequences that a lane can ever admit together.
    #[must_use]
    pub(crate) fn most_at_once(&self, lane: Lane) -> usize {
        self.load.most_at_once(lane)
    }

    fn overloaded(&self, refusal: Refusal, lane: Lane) -> Error {
        let name = &self.name;
        let (message, retry_after) = match refusal {
            Refusal::Full { retry_after } => {
                let capacity = self.load.most_at_once(lane);
                let message =
                    format!("the queue of model \"{name}\" is full ({capacity} inputs): try again");
                (message, retry_after)
            }
            Refusal::TooLate { retry_after } => {
                let message = format!(
                    "the queue of model \"{name}\" takes longer than the time that this request has: try again"
                );
                (message, retry_after)
            }
            Refusal::TooLong { retry_after, most } => {
                let most = humantime::format_duration(most);
                let message = format!(
                    "the queue of model \"{name}\" takes longer than its max_queue_time, {most}: try again"
                );
                (message, retry_after)
            }
        };
        let seconds = retry_after.as_secs_f64();
        Error {
            retry_after: Some(retry_after.max(Duration::from_millis(1))),
            ..Error::new(
                ErrorKind::Overloaded,
                format!("{message} in {seconds:.1} s"),
            )
        }
    }

    /// Runs one sequence. Dropping the future drops the sequence, unless it runs already.
    ///
    /// # Errors
    /// `Internal` when the backend fails on it; `Unavailable` when the backend is lost.
    pub(crate) async fn embed(&self, work: Work) -> Result<Row, Error> {
        // Dropped after the receiver: by then the entry counts as left.
        let mut leaving = TellIfLeft(Some(&self.left));
        let (reply, answer) = oneshot::channel();
        let Work {
            ids,
            type_ids,
            outputs,
            urgent,
            mut admission,
            spent,
        } = work;
        admission.set_tokens(ids.len());
        let (waiting, was_urgent) = (urgent.clone(), urgent.is_set());
        let entry = Entry {
            ids,
            type_ids,
            outputs,
            urgent,
            since: Instant::now(),
            spent,
            reply,
            admission,
        };
        let lost = || down(&self.name, &self.health);
        self.entries.send(entry).await.map_err(|_| lost())?;
        let becomes_urgent = async {
            waiting.until_set().await;
            self.left.notify_one();
        };
        let mut answer = answer;
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The worker may be resting in a long batch that this can go beside now.
            () = becomes_urgent, if !was_urgent => answer.await,
        };
        leaving.0 = None;
        answer.map_err(|_| self.lost_while_running())?
    }

    fn lost_while_running(&self) -> Error {
        if !self.is_healthy() {
            return down(&self.name, &self.health);
        }
        let message = format!(
            "model \"{}\" lost a backend while it ran this input: try again",
            self.name
        );
        Error::unavailable(message, Duration::from_secs(1)).with_code("model_unavailable")
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

fn down(name: &str, health: &Health) -> Error {
    let message = format!("model \"{name}\" is down after a fault, and being loaded again");
    Error::unavailable(message, health.retry_after()).with_code("model_unavailable")
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
