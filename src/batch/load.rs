//! How much waits for a backend, how fast it drains, and who may still come in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use embedgate_request::Lane;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The drain rate is an average over about so many seconds of work.
const RATE_SECONDS: f64 = 5.0;

/// Why inputs were not admitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// There are not so many permits free; probably in so long.
    Full { retry_after: Duration },
    /// What waits already takes longer than the request has; it would have to wait so much less long.
    TooLate { retry_after: Duration },
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
    /// Of each lane: tokens of inputs that wait or run, estimated until they are known; of short inputs, and of long.
    tokens: [[AtomicU64; 2]; 2],
    /// Bits of an f64.
    tokens_per_second: AtomicU64,
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
        }
    }

    /// Takes leave for inputs of so many tokens each (about), for all or for none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        tokens: &[usize],
        lane: Lane,
        deadline: Instant,
    ) -> Result<Vec<Admission>, Refusal> {
        let n = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let take = |semaphore: &Arc<Semaphore>| {
            let permits = Arc::clone(semaphore).try_acquire_many_owned(n);
            permits.map_err(|_| Refusal::Full {
                retry_after: self
                    .time_until_free(tokens.len().saturating_sub(semaphore.available_permits())),
            })
        };
        let mut permits = take(&self.permits)?;
        let mut bulk_permits = match lane {
            Lane::Query => None,
            Lane::Bulk => Some(take(&self.bulk_permits)?),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let longest = tokens.iter().max();
        let wait = self.wait(lane, longest.copied().unwrap_or(0));
        if n > 0 && wait > left {
            return Err(Refusal::TooLate {
                retry_after: wait - left,
            });
        }
        let one = |tokens: &usize| {
            // As many as were acquired are split off.
            let permit = permits.split(1)?;
            let bulk_permit = bulk_permits.as_mut().and_then(|permits| permits.split(1));
            Some(Admission {
                counted: self.counted(lane, *tokens),
                load: Arc::clone(self),
                _permits: (permit, bulk_permit),
            })
        };
        Ok(tokens.iter().filter_map(one).collect())
    }

    /// How long an input of so many tokens would wait for its turn now, as far as one can tell.
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

    /// When so many more permits will be free.
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

    /// How many inputs of a lane there can be.
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

/// How an input was counted: what is short may change meanwhile.
#[derive(Clone, Copy)]
struct Counted {
    lane: Lane,
    tokens: usize,
    is_long: bool,
}

/// Leave to put one sequence into the queue, and the bound on how many there are. Dropping it gives it back.
pub(crate) struct Admission {
    counted: Counted,
    load: Arc<Load>,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl Admission {
    /// The lane that it was given for.
    #[must_use]
    pub(crate) fn lane(&self) -> Lane {
        self.counted.lane
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
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn all_or_none_are_admitted_and_the_time_to_wait_is_that_of_what_is_missing() {
        let load = Arc::new(Load::new(4, 4, 100.0));
        let three = load.admit(&[10, 10, 10], Lane::Query, soon()).unwrap();
        let refused = load
            .admit(&[10, 10, 10], Lane::Query, soon())
            .err()
            .unwrap();
        // Two inputs of 10 tokens have to leave, at 100 tokens a second.
        let retry_after = Duration::from_millis(200);
        assert_eq!(refused, Refusal::Full { retry_after });
        assert_eq!(load.in_flight(), 3, "a refusal takes nothing");
        drop(three);
        assert_eq!(
            (load.in_flight(), load.wait(Lane::Bulk, 1)),
            (0, Duration::ZERO)
        );
        assert_eq!(load.admit(&[1; 4], Lane::Bulk, soon()).unwrap().len(), 4);
    }

    #[test]
    fn who_would_wait_beyond_the_deadline_is_refused_at_once() {
        let load = Arc::new(Load::new(100, 100, 100.0));
        let _bulk = load.admit(&[1000, 500], Lane::Bulk, soon()).unwrap();
        assert!(
            load.admit(&[1], Lane::Query, soon()).is_ok(),
            "bulk is not ahead of a query"
        );
        let refused = load.admit(&[1], Lane::Bulk, soon()).err().unwrap();
        let Refusal::TooLate { retry_after } = refused else {
            panic!("{refused:?}")
        };
        assert!(
            (5.0..5.2).contains(&retry_after.as_secs_f64()),
            "{retry_after:?}"
        );
        assert_eq!(load.in_flight(), 2);
    }

    #[test]
    fn what_goes_beside_a_long_input_does_not_wait_for_it() {
        let load = Arc::new(Load::new(100, 100, 100.0));
        load.set_most_beside(50);
        let _long = load.admit(&[8000], Lane::Query, soon()).unwrap();
        let wait = |lane, tokens| load.wait(lane, tokens).as_secs_f64();
        assert_eq!(wait(Lane::Query, 50), 0.0);
        assert_eq!(wait(Lane::Query, 51), 80.0);
        assert_eq!(
            wait(Lane::Bulk, 50),
            80.0,
            "bulk does not go beside queries"
        );
        let mut short = load.admit(&[40], Lane::Query, soon()).unwrap().remove(0);
        assert_eq!(
            wait(Lane::Query, 50),
            0.8,
            "half of the time is the long one's"
        );
        assert!(load.admit(&[51], Lane::Query, soon()).is_err());
        // It was longer than estimated.
        short.set_tokens(60);
        assert_eq!((wait(Lane::Query, 50), wait(Lane::Query, 51)), (0.0, 80.6));
        load.set_most_beside(70);
        assert_eq!(wait(Lane::Query, 60), 0.0);
        drop(short);
        assert_eq!(wait(Lane::Query, 71), 80.0);
    }

    #[test]
    fn bulk_leaves_room_for_queries() {
        let load = Arc::new(Load::new(4, 3, 100.0));
        let _bulk = load.admit(&[1; 3], Lane::Bulk, soon()).unwrap();
        assert!(load.admit(&[1], Lane::Bulk, soon()).is_err());
        assert_eq!(load.admit(&[1], Lane::Query, soon()).unwrap().len(), 1);
        assert_eq!(Lane::ALL.map(|lane| load.most_at_once(lane)), [4, 3]);
    }

    #[test]
    fn estimates_are_corrected_and_given_back_whole() {
        let load = Arc::new(Load::new(4, 4, 100.0));
        let mut one = load.admit(&[100], Lane::Query, soon()).unwrap().remove(0);
        one.set_tokens(30);
        assert_eq!(load.wait(Lane::Query, 1), Duration::from_millis(300));
        drop(one);
        assert_eq!(load.wait(Lane::Query, 1), Duration::ZERO);
    }

    #[test]
    fn the_rate_follows_the_work_of_all_replicas() {
        let load = Load::new(4, 4, 1.0);
        for _ in 0..100 {
            load.observe(500, Duration::from_secs(1), 2);
        }
        assert!((load.rate() - 1000.0).abs() < 1.0, "{}", load.rate());
    }
}
