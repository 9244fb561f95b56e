//! Closed and open loops of requests, and their times.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use super::Driver;
use crate::bench::{
    client::Connection,
    load::Load,
    measured::{Measured, Outcome},
};

/// Requests of an open loop that may be under way; beyond it the client itself is the limit.
const MAX_OUTSTANDING: usize = 20_000;

impl Driver {
    /// Load for so long; requests under way at the end are waited for and count.
    pub(in crate::bench) async fn measure(&self, load: Load, duration: Duration) -> Measured {
        if duration.is_zero() {
            return Measured::new();
        }
        let started = Instant::now();
        let mut measured = match load {
            Load::Closed(clients) => self.closed(clients, started + duration).await,
            Load::Open(rate) => self.open(rate, started, duration).await,
        };
        measured.seconds = started.elapsed().as_secs_f64();
        measured
    }

    /// Bulk beside the measurement; none where there is none.
    pub(in crate::bench) async fn background(
        &self,
        clients: usize,
        duration: Duration,
    ) -> Option<Measured> {
        if clients == 0 {
            return None;
        }
        Some(self.measure(Load::Closed(clients), duration).await)
    }

    async fn closed(&self, clients: usize, end: Instant) -> Measured {
        let mut tasks = JoinSet::new();
        let salt = fastrand::u64(..);
        for client in 0..clients {
            let driver = self.clone();
            tasks.spawn(async move {
                let mut random = driver.texts.random(salt.wrapping_add(client as u64));
                let mut connection = driver.connection();
                let mut measured = Measured::new();
                while Instant::now() < end {
                    let body = driver.body(&mut random);
                    let sent = Instant::now();
                    let reply = connection.post(body).await;
                    let outcome = Outcome::new(&reply, sent.elapsed());
                    measured.record(outcome, driver.config.inputs);
                }
                measured
            });
        }
        let mut all = Measured::new();
        while let Some(one) = tasks.join_next().await {
            // A task that panicked is a bug; its panic is in the log.
            all.merge(&one.unwrap_or_else(|_| Measured::new()));
        }
        all
    }

    async fn open(&self, rate: f64, started: Instant, duration: Duration) -> Measured {
        let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let mut random = self.texts.random(fastrand::u64(..));
        let mut tasks = JoinSet::new();
        let mut all = Measured::new();
        let mut due = started;
        loop {
            // Gaps between independent arrivals are distributed exponentially.
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            if due > started + duration {
                break;
            }
            tokio::time::sleep_until(due).await;
            while let Some(done) = tasks.try_join_next() {
                all.record(done.unwrap_or(Outcome::Failed), self.config.inputs);
            }
            if tasks.len() >= MAX_OUTSTANDING {
                all.unsent += 1;
                continue;
            }
            let (driver, body, idle) = (self.clone(), self.body(&mut random), Arc::clone(&idle));
            tasks.spawn(async move {
                let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
                let kept = lock().pop();
                let mut connection = kept.unwrap_or_else(|| driver.connection());
                let reply = connection.post(body).await;
                let outcome = Outcome::new(&reply, due.elapsed());
                lock().push(connection);
                outcome
            });
        }
        while let Some(done) = tasks.join_next().await {
            all.record(done.unwrap_or(Outcome::Failed), self.config.inputs);
        }
        all
    }
}
