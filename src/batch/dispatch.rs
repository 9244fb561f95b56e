//! The task that collects entries and hands a batch to each worker that asks.

use std::{sync::Arc, time::Instant};

use embedgate_metrics::ModelMetrics;
use embedgate_request::Lane;
use tokio::sync::{Notify, mpsc};

use super::{
    cost::BatchShape,
    entry::QueueEntry,
    lane::Waiting,
    load::QueueLoad,
    queue::BatchQueue,
    refused::down,
    replica::Health,
    work_request::{Batch, WorkRequest},
};

/// Collects entries and hands a batch to each worker that asks.
pub(super) struct Dispatcher {
    pub(super) name: Arc<str>,
    pub(super) queue: BatchQueue<QueueEntry>,
    pub(super) load: Arc<QueueLoad>,
    pub(super) health: Health,
    pub(super) left: Arc<Notify>,
    pub(super) metrics: ModelMetrics,
    pub(super) started: Instant,
    /// The requests of workers whose batch takes long: they take a short batch whenever one comes.
    pub(super) resting: Vec<WorkRequest>,
}

impl Dispatcher {
    /// Ends when every sender of entries is gone and the queue is empty.
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<QueueEntry>,
        mut work_requests: mpsc::Receiver<WorkRequest>,
    ) {
        loop {
            if self.queue.is_empty() {
                let Some(entry) = incoming.recv().await else {
                    return;
                };
                self.push(entry);
            }
            let (health, left) = (self.health.clone(), Arc::clone(&self.left));
            tokio::select! {
                // Whatever has arrived joins the queue before the next batch is picked.
                biased;
                Some(entry) = incoming.recv() => self.push(entry),
                Some(request) = work_requests.recv() => self.take_work_request(request),
                () = health.down() => self.refuse_all(),
                () = left.notified() => {
                    self.discard();
                    self.promote(self.now());
                }
                // A worker that is free comes before one that would have to interrupt its batch.
                () = std::future::ready(()), if self.can_interrupt() => self.interrupt(),
            }
            self.show();
        }
    }

    fn push(&mut self, entry: QueueEntry) {
        let now = self.now();
        self.queue.push(now, waiting(entry, now));
    }

    fn take_work_request(&mut self, mut request: WorkRequest) {
        for (shape, time) in request.done.drain(..) {
            self.queue.cost_mut().observe(shape, time.as_secs_f64());
            // What a small batch does says nothing of how fast a queue drains.
            if !self.queue.is_empty() || self.queue.is_large(shape) {
                let working = self.health.working();
                self.load.observe(shape.tokens, time, working);
            }
        }
        self.load.set_most_beside(self.queue.most_beside());
        if request.beside.is_some() {
            self.resting.push(request);
            return;
        }
        self.discard();
        let now = self.now();
        self.promote(now);
        let entries = self.queue.next_batch(now);
        let shape: BatchShape = entries.iter().map(|entry| entry.ids.len()).collect();
        let is_bulk = entries.iter().all(|entry| entry.lane() == Lane::Bulk);
        let lane = if is_bulk { Lane::Bulk } else { Lane::Query };
        let beside = self.queue.beside(lane, shape);
        self.hand_over(request, Batch { entries, beside });
    }

    /// Returns true when a resting worker could run a short batch now.
    fn can_interrupt(&mut self) -> bool {
        self.resting.retain(|request| !request.batch.is_closed());
        if self.resting.is_empty() {
            return false;
        }
        self.resting.iter().any(|request| self.has_short(request))
    }

    fn has_short(&self, resting: &WorkRequest) -> bool {
        resting
            .beside
            .is_some_and(|lane| self.queue.has_short(lane))
    }

    fn interrupt(&mut self) {
        self.discard();
        let first = self
            .resting
            .iter()
            .position(|request| self.has_short(request));
        let Some(request) = first.map(|at| self.resting.remove(at)) else {
            return;
        };
        let (lane, now) = (request.beside.unwrap_or(Lane::Query), self.now());
        let batch = Batch {
            entries: self.queue.next_short_batch(lane, now),
            beside: None,
        };
        self.hand_over(request, batch);
    }

    fn hand_over(&mut self, request: WorkRequest, batch: Batch) {
        // A worker that died since it asked, or is through with its long batch, gives this one back: it waits for another,
        // or for the end.
        if let Err(batch) = request.batch.send(batch) {
            for entry in batch.entries {
                let since = entry.since.saturating_duration_since(self.started);
                self.queue.put_back(waiting(entry, since.as_secs_f64()));
            }
        }
    }

    fn promote(&mut self, now: f64) {
        self.queue.promote(now, |entry| entry.urgent.is_set());
    }

    fn discard(&mut self) {
        self.queue.discard(|entry| entry.reply.is_closed());
    }

    /// No replica works: nobody shall wait for one.
    fn refuse_all(&mut self) {
        for entry in self.queue.drain() {
            entry.answer(Err(down(&self.name, &self.health)));
        }
    }

    fn show(&self) {
        for lane in Lane::ALL {
            let n = i64::try_from(self.queue.len(lane)).unwrap_or(i64::MAX);
            self.metrics.queue_inputs[lane as usize].set(n);
        }
        self.metrics.drain_rate.set(self.load.rate());
    }

    fn now(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

fn waiting(entry: QueueEntry, since: f64) -> Waiting<QueueEntry> {
    Waiting {
        lane: entry.lane(),
        tokens: entry.ids.len(),
        place: entry.admission.place(),
        since,
        payload: entry,
    }
}
