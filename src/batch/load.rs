//! The load of a backend: the work that waits, the rate at which it drains, and the admission of inputs.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_request::{Begun, Lane, RequestContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::promises::Promises;

/// The drain rate is an average over about so many seconds of work.
const RATE_SECONDS: f64 = 5.0;

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

/// The time that a request's inputs may wait for their turn.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    deadline: Instant,
    /// A request that has begun is not held to `max_queue_time`: it waited at its begin.
    begun: &'a Begun,
}

impl<'a> Patience<'a> {
    pub(crate) fn of(ctx: &'a RequestContext) -> Self {
        Self {
            deadline: ctx.deadline,
            begun: &ctx.begun,
        }
    }

    /// Until a time, and for what has begun: whatever is ahead.
    #[cfg(test)]
    pub(crate) fn until(deadline: Instant, begun: &'a Begun) -> Self {
        Self { deadline, begun }
    }
}

/// The load of one model's backend. Shared by those who add to it and those who take from it.
pub(crate) struct Load {
    permits: Arc<Semaphore>,
    /// Bulk needs one of these too: there are fewer, so that an import leaves room for queries.
    bulk_permits: Arc<Semaphore>,
    capacity: usize,
    bulk_capacity: usize,
    /// Inputs of up to so many tokens do not wait for the end of longer ones.
    most_beside: AtomicUsize,
    /// Tokens of the inputs that wait or run, by lane, then short and long inputs. They are estimated until they are
    /// known.
    tokens: [[AtomicU64; 2]; 2],
    /// Bits of an f64.
    tokens_per_second: AtomicU64,
    /// The longest time that the work ahead of a request may take, by lane.
    max_queue_time: [Duration; 2],
    promises: Mutex<Promises>,
    /// Requests that were let in.
    requests: AtomicU64,
}

impl Load {
    pub(crate) fn new(capacity: usize, bulk_capacity: usize, tokens_per_second: f64) -> Self {
        let bulk_capacity = bulk_capacity.min(capacity);
        Self {
            permits: Arc::new(Semaphore::new(capacity)),
            bulk_permits: Arc::new(Semaphore::new(bulk_capacity)),
            capacity,
            bulk_capacity,
            most_beside: AtomicUsize::new(0),
            tokens: Default::default(),
            tokens_per_second: AtomicU64::new(tokens_per_second.to_bits()),
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
        let n = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let all: u64 = tokens.iter().map(|n| *n as u64).sum();
        let take = |semaphore: &Arc<Semaphore>| {
            let permits = Arc::clone(semaphore).try_acquire_many_owned(n);
            permits.map_err(|_| {
                let missing = tokens.len().saturating_sub(semaphore.available_permits());
                Refusal::Full {
                    retry_after: self.retry_after(self.time_until_free(missing), all),
                }
            })
        };
        let mut permits = take(&self.permits)?;
        let mut bulk_permits = match lane {
            Lane::Query => None,
            Lane::Bulk => Some(take(&self.bulk_permits)?),
        };
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
                retry_after: self.retry_after(wait - most / 2, all),
                most,
            });
        }
        let next = || self.requests.fetch_add(1, Ordering::Relaxed);
        let place = patience.begun.admit(next);
        let one = |tokens: &usize| {
            // As many as were acquired are split off.
            let permit = permits.split(1)?;
            let bulk_permit = bulk_permits.as_mut().and_then(|permits| permits.split(1));
            Some(Admission {
                counted: self.counted(lane, *tokens),
                place,
                load: Arc::clone(self),
                _permits: (permit, bulk_permit),
            })
        };
        Ok(tokens.iter().filter_map(one).collect())
    }

    /// Estimates the time that an input of `tokens` tokens would wait for its turn now.
    pub(crate) fn wait(&self, lane: Lane, tokens: usize) -> Duration {
        let of = |lane: Lane| {
            let [short, long] = &self.tokens[lane as usize];
            [short, long].map(|tokens| tokens.load(Ordering::Relaxed))
        };
        let ([queries, long_queries], [bulk, long_bulk]) = (of(Lane::Query), of(Lane::Bulk));
        // Beside a long batch others have half of the time.
        let beside = |tokens: u64, long: u64| tokens + tokens.min(long);
        let ahead = match (lane, self.is_long(tokens)) {
            (Lane::Query, false) => beside(queries, long_queries + long_bulk),
            (Lane::Query, true) => queries + long_queries,
            (Lane::Bulk, false) => beside(queries + bulk, long_bulk) + long_queries,
            (Lane::Bulk, true) => queries + long_queries + bulk + long_bulk,
        };
        seconds(ahead as f64 / self.rate())
    }

    fn is_long(&self, tokens: usize) -> bool {
        tokens > self.most_beside.load(Ordering::Relaxed)
    }

    /// Inputs of up to so many tokens go beside longer ones from now on.
    pub(crate) fn set_most_beside(&self, tokens: usize) {
        self.most_beside.store(tokens, Ordering::Relaxed);
    }

    fn count(&self, counted: Counted) -> &AtomicU64 {
        &self.tokens[counted.lane as usize][usize::from(counted.is_long)]
    }

    fn counted(&self, lane: Lane, tokens: usize) -> Counted {
        let is_long = self.is_long(tokens);
        let counted = Counted {
            lane,
            tokens,
            is_long,
        };
        self.count(counted)
            .fetch_add(tokens as u64, Ordering::Relaxed);
        counted
    }

    fn give_back(&self, counted: Counted) {
        self.count(counted)
            .fetch_sub(counted.tokens as u64, Ordering::Relaxed);
    }

    /// Returns the time after which a refused request may come in: after those that were refused before.
    fn retry_after(&self, wait: Duration, tokens: u64) -> Duration {
        let mut promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        promises.retry_after(wait, tokens, self.rate(), Instant::now())
    }

    /// Estimates the time until `missing` more permits are free.
    fn time_until_free(&self, missing: usize) -> Duration {
        let tokens: u64 = self
            .tokens
            .as_flattened()
            .iter()
            .map(|t| t.load(Ordering::Relaxed))
            .sum();
        let per_input = tokens as f64 / self.in_flight().max(1) as f64;
        seconds(missing.max(1) as f64 * per_input / self.rate())
    }

    /// Inputs that wait or run.
    pub(crate) fn in_flight(&self) -> usize {
        self.capacity - self.permits.available_permits()
    }

    /// Returns the largest number of inputs that a lane can have at once.
    pub(crate) fn most_at_once(&self, lane: Lane) -> usize {
        match lane {
            Lane::Query => self.capacity,
            Lane::Bulk => self.bulk_capacity,
        }
    }

    /// Tokens a second that are drained, lately.
    pub(crate) fn rate(&self) -> f64 {
        f64::from_bits(self.tokens_per_second.load(Ordering::Relaxed)).max(1e-3)
    }

    /// Learns from a stretch of work: so many tokens in so many seconds, while `replicas` worked side by side.
    pub(crate) fn observe(&self, tokens: usize, duration: Duration, replicas: usize) {
        let duration = duration.as_secs_f64().max(1e-6);
        let now = tokens as f64 / duration * replicas.max(1) as f64;
        let weight = 1.0 - (-duration / RATE_SECONDS).exp();
        let rate = self.rate() * (1.0 - weight) + now * weight;
        self.tokens_per_second
            .store(rate.to_bits(), Ordering::Relaxed);
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// The record of a counted input: the bound between short and long may change meanwhile.
#[derive(Clone, Copy)]
struct Counted {
    lane: Lane,
    tokens: usize,
    is_long: bool,
}

/// Leave to put one sequence into the queue, and the bound on how many there are. Dropping it gives it back.
pub(crate) struct Admission {
    counted: Counted,
    place: u64,
    load: Arc<Load>,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Admission {
    /// The lane that it was given for.
    #[must_use]
    pub(crate) fn lane(&self) -> Lane {
        self.counted.lane
    }

    /// The place of its request among those who wait: lower ones came in earlier.
    #[must_use]
    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    /// Corrects the estimate, once the tokens are counted.
    pub(crate) fn set_tokens(&mut self, tokens: usize) {
        let counted = self.load.counted(self.lane(), tokens);
        let before = std::mem::replace(&mut self.counted, counted);
        self.load.give_back(before);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.load.give_back(self.counted);
    }
}

#[cfg(test)]
mod tests;
