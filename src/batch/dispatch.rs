//! The task that collects entries and hands a batch to each worker that asks.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::{Notify, mpsc};

use super::{Entry, down, load::Load, queue::BatchQueue, replica::Health, worker::Turn};
use crate::{metrics::ModelMetrics, request::Lane, spent::Step};

/// Collects entries and hands a batch to each worker that asks.
pub(super) struct Dispatcher {
    pub(super) name: Arc<str>,
    pub(super) queue: BatchQueue<Entry>,
    pub(super) load: Arc<Load>,
    pub(super) health: Health,
    pub(super) left: Arc<Notify>,
    pub(super) metrics: ModelMetrics,
    pub(super) started: Instant,
}

impl Dispatcher {
    /// Ends when every sender of entries is gone and the queue is empty.
    pub(super) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Entry>,
        mut turns: mpsc::Receiver<Turn>,
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
                Some(turn) = turns.recv() => self.hand_over(turn),
                () = health.down() => self.refuse_all(),
                () = left.notified() => self.discard(),
            }
            self.show();
        }
    }

    fn push(&mut self, entry: Entry) {
        let lane = entry.admission.lane();
        let now = self.now();
        self.queue.push(lane, entry.ids.len(), now, entry);
    }

    fn hand_over(&mut self, turn: Turn) {
        if let Some((shape, time)) = turn.done {
            self.queue.cost_mut().observe(shape, time.as_secs_f64());
            // What a small batch does says nothing of how fast a queue drains.
            if !self.queue.is_empty() || self.queue.is_large(shape) {
                let working = self.health.working();
                self.load.observe(shape.tokens, time, working);
            }
        }
        self.discard();
        let now = self.now();
        self.queue
            .promote(now, |entry| entry.urgent.load(Ordering::Relaxed));
        let batch = self.queue.next_batch(now);
        for entry in &batch {
            let wait = entry.since.elapsed();
            entry.spent.add(Step::Queue, wait);
            let lane = entry.admission.lane() as usize;
            self.metrics.queue_seconds[lane].observe(wait.as_secs_f64());
        }
        // A worker that died since it asked gives the batch back: it waits for another, or for the end.
        if let Err(batch) = turn.batch.send(batch) {
            for entry in batch {
                self.push(entry);
            }
        }
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
