//! The load of a backend: the work that waits, the rate at which it drains, and the admission of inputs.

pub(super) mod admission;
mod backlog;
pub(super) mod patience;
mod permits;
mod promises;
mod rate;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_metrics::ModelMetrics;
use embedgate_request::Lane;

use self::{
    admission::Admission, backlog::Backlog, patience::Patience, permits::Permits,
    promises::Promises, rate::DrainRate,
};

/// The reason why inputs were not admitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// There are not so many permits free; probably in so long.
    Full { retry_after: Duration },
    /// The wait for a turn is longer than the time that the request has left; the retry comes after the difference.
    TooLate { retry_after: Duration },
    /// The queue takes longer than anybody shall wait.
    TooLong {
        retry_after: Duration,
        most: Duration,
    },
}

/// The load of one model's backend. Shared by those who add to it and those who take from it.
pub(crate) struct QueueLoad {
    permits: Permits,
    backlog: Backlog,
    rate: DrainRate,
    /// The longest time that the work ahead of a request may take, by lane.
    max_queue_time: [Duration; 2],
    promises: Mutex<Promises>,
    /// Requests that were let in.
    requests: AtomicU64,
}

impl QueueLoad {
    /// Makes the load of a backend that has no work yet; of its permits `bulk_capacity` are for bulk.
    pub(crate) fn new(capacity: usize, bulk_capacity: usize, tokens_per_second: f64) -> Self {
        Self {
            permits: Permits::new(capacity, bulk_capacity),
            backlog: Backlog::default(),
            rate: DrainRate::new(tokens_per_second),
            max_queue_time: [Duration::MAX; 2],
            promises: Mutex::default(),
            requests: AtomicU64::new(1),
        }
    }

    /// Sets how much may be ahead of who comes in, by lane.
    pub(crate) fn with_max_queue_time(mut self, of: impl Fn(Lane) -> Duration) -> Self {
        for lane in Lane::ALL {
            self.max_queue_time[lane as usize] = of(lane);
        }
        self
    }

    /// Takes leave for inputs of so many tokens each (about), for all or for none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        tokens: &[usize],
        lane: Lane,
        patience: Patience<'_>,
    ) -> Result<Vec<Admission>, Refusal> {
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let full = |missing| Refusal::Full {
            retry_after: self.retry_after(self.time_until_free(missing), sum(tokens)),
        };
        let mut permits = self.permits.take(tokens.len(), lane, full)?;
        self.check_wait(tokens, lane, patience)?;
        let next = || self.requests.fetch_add(1, Ordering::Relaxed);
        let place = patience.begun.admit(next);
        let one = |tokens: &usize| {
            // As many as were acquired are split off.
            let permit = permits.split_one()?;
            Some(Admission {
                counted: self.backlog.add(lane, *tokens),
                place,
                load: Arc::clone(self),
                _permit: permit,
            })
        };
        Ok(tokens.iter().filter_map(one).collect())
    }

    /// Refuses inputs that would wait beyond their deadline, or for longer than anybody shall.
    fn check_wait(
        &self,
        tokens: &[usize],
        lane: Lane,
        patience: Patience<'_>,
    ) -> Result<(), Refusal> {
        let left = patience.deadline.saturating_duration_since(Instant::now());
        let longest = tokens.iter().max();
        let wait = self.wait(lane, longest.copied().unwrap_or(0));
        if wait > left {
            return Err(Refusal::TooLate {
                // Whoever has so little time is not waited for.
                retry_after: self.retry_after(wait - left, 0),
            });
        }
        let most = self.max_queue_time[lane as usize];
        if wait > most && !patience.begun.is_admitted() {
            return Err(Refusal::TooLong {
                // When the queue takes half of that time: estimates are rough, and stock clients come back only twice.
                retry_after: self.retry_after(wait - most / 2, sum(tokens)),
                most,
            });
        }
        Ok(())
    }

    /// Estimates the time that an input of `tokens` tokens would wait for its turn now.
    pub(crate) fn wait(&self, lane: Lane, tokens: usize) -> Duration {
        self.rate
            .time_for(self.backlog.ahead_of(lane, tokens) as f64)
    }

    /// Inputs of up to so many tokens go beside longer ones from now on.
    pub(crate) fn set_most_beside(&self, tokens: usize) {
        self.backlog.set_most_beside(tokens);
    }

    /// Returns the time after which a refused request may come in: after those that were refused before.
    fn retry_after(&self, wait: Duration, tokens: u64) -> Duration {
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        promises.retry_after(wait, tokens, self.rate(), Instant::now())
    }

    /// Estimates the time until `missing` more permits are free.
    fn time_until_free(&self, missing: usize) -> Duration {
        let per_input = self.backlog.total() as f64 / self.in_flight().max(1) as f64;
        self.rate.time_for(missing.max(1) as f64 * per_input)
    }

    /// Shows the tokens that wait or run, and the time that they will take.
    pub(crate) fn show(&self, metrics: &ModelMetrics) {
        for lane in Lane::ALL {
            let tokens = i64::try_from(self.backlog.of(lane)).unwrap_or(i64::MAX);
            metrics.queue_tokens[lane as usize].set(tokens);
        }
        let time = self.rate.time_for(self.backlog.total() as f64);
        metrics.backlog_seconds.set(time.as_secs_f64());
    }

    /// Inputs that wait or run.
    pub(crate) fn in_flight(&self) -> usize {
        self.permits.taken()
    }

    /// Returns the largest number of inputs that a lane can have at once.
    pub(crate) fn most_at_once(&self, lane: Lane) -> usize {
        self.permits.most_at_once(lane)
    }

    /// Tokens a second that are drained, lately.
    pub(crate) fn rate(&self) -> f64 {
        self.rate.get()
    }

    /// Learns from a stretch of work: so many tokens in so many seconds, while `replicas` worked side by side.
    pub(crate) fn observe(&self, tokens: usize, duration: Duration, replicas: usize) {
        self.rate.observe(tokens, duration, replicas);
    }
}

fn sum(tokens: &[usize]) -> u64 {
    tokens.iter().map(|n| *n as u64).sum()
}

#[cfg(test)]
mod tests;
