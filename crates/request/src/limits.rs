//! Limits on a principal's use: token buckets over requests and over tokens of text.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dashmap::DashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// The limits on one principal's use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// Requests that cost something (POST); so many may come at once after a pause. Without it: any number.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens of answered inputs, by the model's tokenizer. Without it: any number.
    pub tokens_per_minute: Option<NonZeroU32>,
}

/// Beyond so many principals, those that have not asked for a minute are forgotten: their buckets are full again.
const MANY: usize = 10_000;

/// A token bucket: full at first, filled at an even rate, never above its size.
///
/// A pure rule: the caller says what time it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    level: f64,
    at: Duration,
}

impl Bucket {
    /// A full one. Times are since any fixed moment.
    #[must_use]
    pub fn full(size: f64, now: Duration) -> Self {
        Self {
            level: size,
            at: now,
        }
    }

    /// Whole tokens that are there; below zero where more was charged than was there.
    pub fn level(&mut self, per_minute: f64, size: f64, now: Duration) -> f64 {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + seconds * per_minute / 60.0).min(size);
        self.at = self.at.max(now);
        self.level
    }

    /// Takes tokens where they are there, else says when they will be.
    ///
    /// # Errors
    /// The time until then; none where the cost is above the size.
    pub fn take(
        &mut self,
        cost: f64,
        per_minute: f64,
        size: f64,
        now: Duration,
    ) -> Result<(), Option<Duration>> {
        let level = self.level(per_minute, size, now);
        if level >= cost {
            self.level -= cost;
            return Ok(());
        }
        let seconds = (cost - level) * 60.0 / per_minute;
        Err((cost <= size)
            .then(|| Duration::try_from_secs_f64(seconds).ok())
            .flatten())
    }

    /// Takes tokens that may not be there: then nothing more can be taken until the debt is paid.
    pub fn charge(&mut self, cost: f64) {
        self.level -= cost;
    }
}

/// The requests and tokens that one principal has left.
#[derive(Debug)]
pub struct Allowance {
    config: LimitConfig,
    started: Instant,
    /// Requests, and tokens.
    buckets: Mutex<[Bucket; 2]>,
}

impl Allowance {
    fn new(config: LimitConfig) -> Self {
        let full = |limit: Option<NonZeroU32>| {
            Bucket::full(limit.map_or(0.0, |n| f64::from(n.get())), Duration::ZERO)
        };
        Self {
            config,
            started: Instant::now(),
            buckets: Mutex::new([
                full(config.requests_per_minute),
                full(config.tokens_per_minute),
            ]),
        }
    }

    /// Counts a request, unless there were too many of them, or of their tokens.
    ///
    /// # Errors
    /// `Overloaded` with the time to wait.
    pub fn admit(&self) -> Result<(), Error> {
        self.admit_at(self.started.elapsed())
    }

    fn admit_at(&self, now: Duration) -> Result<(), Error> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let [requests, tokens] = &mut *buckets;
        self.has_tokens(tokens, now)?;
        if let Some(limit) = self.config.requests_per_minute {
            let per_minute = f64::from(limit.get());
            let taken = requests.take(1.0, per_minute, per_minute, now);
            taken.map_err(|wait| exceeded("requests", limit.get(), wait.unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Makes a request that was admitted count nothing.
    pub fn forget_request(&self) {
        if self.config.requests_per_minute.is_some() {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets[0].charge(-1.0);
        }
    }

    /// Refuses where no token is left.
    fn has_tokens(&self, tokens: &mut Bucket, now: Duration) -> Result<(), Error> {
        let Some(limit) = self.config.tokens_per_minute else {
            return Ok(());
        };
        let per_minute = f64::from(limit.get());
        let level = tokens.level(per_minute, per_minute, now);
        if level >= 1.0 {
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 - level) * 60.0 / per_minute);
        let wait = wait.unwrap_or(Duration::MAX);
        Err(exceeded("tokens", limit.get(), wait))
    }

    /// Takes what a request will use, about. Where that is more than is left, the next one pays the debt.
    ///
    /// # Errors
    /// `Overloaded` where others took all since the request was admitted.
    pub fn begin_tokens(&self, n: i64) -> Result<(), Error> {
        self.begin_tokens_at(n, self.started.elapsed())
    }

    fn begin_tokens_at(&self, n: i64, now: Duration) -> Result<(), Error> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_tokens(&mut buckets[1], now)?;
        buckets[1].charge(n as f64);
        Ok(())
    }

    /// Takes what a request used beside what it took, or gives back what it did not use.
    pub fn charge_tokens(&self, n: i64) {
        if self.config.tokens_per_minute.is_some() {
            let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
            buckets[1].charge(n as f64);
        }
    }

    /// Returns true when all limited buckets are full, so that forgetting this allowance changes nothing.
    fn is_full(&self) -> bool {
        let now = self.started.elapsed();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = [
            self.config.requests_per_minute,
            self.config.tokens_per_minute,
        ];
        limits
            .into_iter()
            .zip(&mut *buckets)
            .all(|(limit, bucket)| {
                limit.is_none_or(|limit| {
                    let size = f64::from(limit.get());
                    bucket.level(size, size, now) >= size
                })
            })
    }
}

fn exceeded(what: &str, limit: u32, wait: Duration) -> Error {
    let message = format!(
        "the limit of {limit} {what} a minute is reached: try again in {} s",
        wait.as_secs_f64().ceil()
    );
    Error {
        retry_after: Some(wait),
        ..Error::new(ErrorKind::Overloaded, message)
    }
    .with_code("rate_limit_exceeded")
}

/// The limits of the configuration, and what each principal has left of them.
#[derive(Debug, Default)]
pub struct Limits {
    configs: BTreeMap<String, LimitConfig>,
    allowances: Arc<DashMap<(String, String), Arc<Allowance>>>,
}

impl Limits {
    /// Takes the limits from the configuration; whoever had used up theirs under the same limit still has.
    #[must_use]
    pub fn new(configs: &BTreeMap<String, LimitConfig>, before: Option<&Self>) -> Self {
        let allowances = before
            .map(|before| Arc::clone(&before.allowances))
            .unwrap_or_default();
        allowances.retain(|(name, _), allowance| configs.get(name) == Some(&allowance.config));
        Self {
            configs: configs.clone(),
            allowances,
        }
    }

    /// Returns the allowance of a principal under a limit; none where there is no limit of that name.
    #[must_use]
    pub fn allowance(&self, limit: &str, subject: &str) -> Option<Arc<Allowance>> {
        let config = *self.configs.get(limit)?;
        if self.allowances.len() > MANY {
            self.allowances
                .retain(|_, allowance| Arc::strong_count(allowance) > 1 || !allowance.is_full());
        }
        let key = (limit.to_owned(), subject.to_owned());
        let new = || Arc::new(Allowance::new(config));
        let mut found = self.allowances.entry(key).or_insert_with(new);
        // One that was made under other limits, by a call that began before a reload.
        if found.config != config {
            *found = new();
        }
        Some(Arc::clone(&found))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowance(requests: Option<u32>, tokens: Option<u32>) -> Allowance {
        let limit = |n: Option<u32>| n.map(|n| n.try_into().unwrap());
        Allowance::new(LimitConfig {
            requests_per_minute: limit(requests),
            tokens_per_minute: limit(tokens),
        })
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn requests_beyond_the_limit_wait_for_their_share_of_a_minute() {
        let allowance = allowance(Some(2), None);
        assert!(allowance.admit_at(at(0.0)).is_ok());
        assert!(allowance.admit_at(at(0.0)).is_ok());
        let refused = allowance.admit_at(at(10.0)).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Overloaded);
        let wait = refused.retry_after.unwrap().as_secs_f64();
        assert!((wait - 20.0).abs() < 1e-6, "{wait}");
        assert!(allowance.admit_at(at(30.1)).is_ok());
    }

    #[test]
    fn tokens_are_charged_after_the_answer_and_the_debt_is_paid_first() {
        let allowance = allowance(None, Some(60));
        assert!(allowance.admit_at(at(0.0)).is_ok());
        allowance.charge_tokens(90);
        let refused = allowance.admit_at(at(0.0)).unwrap_err();
        assert_eq!(refused.retry_after.unwrap().as_secs(), 31);
        assert!(allowance.admit_at(at(31.1)).is_ok());
    }

    #[test]
    fn requests_that_were_admitted_at_once_do_not_all_take_tokens() {
        let allowance = allowance(None, Some(60));
        let admitted = (0..10).filter(|_| allowance.admit_at(at(0.0)).is_ok());
        assert_eq!(admitted.count(), 10);
        let taken = (0..10).filter(|_| allowance.begin_tokens_at(50, at(0.0)).is_ok());
        assert_eq!(taken.count(), 2, "the second takes more than is left");
    }

    #[test]
    fn a_limit_that_did_not_change_keeps_what_was_used() {
        let one = LimitConfig {
            requests_per_minute: Some(1.try_into().unwrap()),
            tokens_per_minute: None,
        };
        let configs = BTreeMap::from([("a".to_owned(), one)]);
        let limits = Limits::new(&configs, None);
        assert!(limits.allowance("a", "me").unwrap().admit().is_ok());
        assert!(limits.allowance("a", "me").unwrap().admit().is_err());
        assert!(limits.allowance("a", "you").unwrap().admit().is_ok());
        let again = Limits::new(&configs, Some(&limits));
        assert!(again.allowance("a", "me").unwrap().admit().is_err());
        assert!(again.allowance("b", "me").is_none());
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_size_and_rate(
            steps in prop::collection::vec((0.0_f64..5.0, 0.0_f64..20.0), 1..100),
        ) {
            let (per_minute, size) = (120.0, 10.0);
            let mut bucket = Bucket::full(size, Duration::ZERO);
            let (mut now, mut given) = (0.0, 0.0);
            for (wait, cost) in steps {
                now += wait;
                if bucket.take(cost, per_minute, size, at(now)).is_ok() {
                    given += cost;
                }
                prop_assert!(given <= size + now * per_minute / 60.0 + 1e-6);
            }
        }
    }
}
