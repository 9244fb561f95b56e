//! Sends the load and takes the times.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use hyper::body::Bytes;
use tokio::{task::JoinSet, time::Instant};

use super::{
    RequestConfig,
    client::{Connection, Reply, Target},
    texts::Texts,
};

/// Longest time that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;
/// Requests of an open loop that may be under way; beyond it the client itself is the limit.
const MAX_OUTSTANDING: usize = 20_000;
/// Texts in a request that fills the hot set.
const FILL: usize = 16;

/// The amount of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many clients, each with one request at a time.
    Closed(usize),
    /// So many requests a second, at random moments.
    Open(f64),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(1) => f.write_str("1 client"),
            Self::Closed(n) => write!(f, "{n} clients"),
            Self::Open(rate) => write!(f, "{rate} requests/s"),
        }
    }
}

/// The measurements of one target under one load.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Length of the measurement.
    pub seconds: f64,
    /// Times of good answers, in microseconds.
    pub times: Histogram<u64>,
    /// Times of refusals (429 and 503), in microseconds.
    pub refusals: Histogram<u64>,
    /// Inputs of good answers.
    pub inputs: u64,
    /// Tokens of good answers.
    pub tokens: u64,
    /// Answers of another status, and requests without an answer.
    pub errors: u64,
    /// Requests of an open loop that were not sent, for want of room in the client.
    pub unsent: u64,
}

impl Measured {
    fn new() -> Self {
        let times = || Histogram::new_with_bounds(1, LONGEST_US, 3);
        let times = || times().expect("the bounds are constants that are in order");
        Self {
            seconds: 0.0,
            times: times(),
            refusals: times(),
            inputs: 0,
            tokens: 0,
            errors: 0,
            unsent: 0,
        }
    }

    fn record(&mut self, outcome: Outcome, inputs: usize) {
        match outcome {
            Outcome::Good { us, tokens } => {
                self.times.saturating_record(us);
                self.inputs += inputs as u64;
                self.tokens += tokens;
            }
            Outcome::Refused { us } => self.refusals.saturating_record(us),
            Outcome::Failed => self.errors += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.times += &other.times;
        self.refusals += &other.refusals;
        self.inputs += other.inputs;
        self.tokens += other.tokens;
        self.errors += other.errors;
        self.unsent += other.unsent;
    }
}

/// The outcome of one request; times in microseconds.
#[derive(Clone, Copy)]
enum Outcome {
    Good { us: u64, tokens: u64 },
    Refused { us: u64 },
    Failed,
}

impl Outcome {
    fn new(reply: &anyhow::Result<Reply>, time: Duration) -> Self {
        let us = u64::try_from(time.as_micros()).unwrap_or(LONGEST_US);
        match reply {
            Ok(reply) if reply.status == 200 => Self::Good {
                us,
                tokens: reply.tokens(),
            },
            Ok(Reply {
                status: 429 | 503, ..
            }) => Self::Refused { us },
            Ok(_) | Err(_) => Self::Failed,
        }
    }
}

/// Makes requests of one kind for one target.
#[derive(Clone)]
pub(super) struct Driver {
    target: Target,
    config: Arc<RequestConfig>,
    texts: Texts,
}

impl Driver {
    pub(super) fn new(target: &Target, config: &RequestConfig, texts: &Texts) -> Self {
        Self {
            target: target.clone(),
            config: Arc::new(config.clone()),
            texts: texts.clone(),
        }
    }

    fn connection(&self) -> Connection {
        let config = &self.config;
        Connection::new(
            &self.target,
            config.key.as_deref(),
            config.lane,
            config.timeout,
        )
    }

    /// Sends one request, which has to succeed.
    pub(super) async fn try_out(&self) -> anyhow::Result<Bytes> {
        let mut random = self.texts.random(u64::MAX);
        let body = self.body(&mut random);
        let mut connection = self.connection();
        let name = &self.target.name;
        let reply = connection.post(body).await;
        let reply = reply.with_context(|| format!("the first request to {name} failed"))?;
        if reply.status != 200 {
            let text: String = String::from_utf8_lossy(&reply.bytes)
                .chars()
                .take(300)
                .collect();
            bail!(
                "{name} answers {} to the first request: {text}",
                reply.status
            );
        }
        Ok(reply.bytes)
    }

    /// Asks for every text of the hot set.
    pub(super) async fn fill_hot(&self) -> anyhow::Result<()> {
        let mut connection = self.connection();
        for texts in self.texts.hot().chunks(FILL) {
            let reply = connection.post(self.envelope(&texts.join(","))).await?;
            if reply.status != 200 {
                bail!(
                    "{} answers {} to texts of the hot set",
                    self.target.name,
                    reply.status
                );
            }
        }
        Ok(())
    }

    fn body(&self, random: &mut fastrand::Rng) -> Bytes {
        let mut inputs = String::new();
        for i in 0..self.config.inputs {
            if i > 0 {
                inputs.push(',');
            }
            self.texts.draw(random, &mut inputs);
        }
        self.envelope(&inputs)
    }

    fn envelope(&self, inputs: &str) -> Bytes {
        let model = serde_json::json!(self.config.model);
        let encoding = &self.config.encoding;
        format!(r#"{{"model":{model},"encoding_format":"{encoding}","input":[{inputs}]}}"#).into()
    }

    /// Load for so long; requests under way at the end are waited for and count.
    pub(super) async fn measure(&self, load: Load, duration: Duration) -> Measured {
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
    pub(super) async fn background(&self, clients: usize, duration: Duration) -> Option<Measured> {
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
