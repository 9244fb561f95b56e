//! The store of a plugin: keys and values in memory, within bounds, with times to live.

mod entries;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use embedgate_config::KvConfig;
use embedgate_request::limits::Bucket;

use self::entries::{Entries, Value};

const MOST_VALUE_BYTES: usize = 64 << 10;

/// The reasons why a value cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KvError {
    Full,
    TooLarge,
    NotANumber,
}

/// The rate of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_minute: u32,
    /// The tokens of a full bucket.
    pub(super) burst: u32,
}

/// The answer of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Taken {
    pub(super) taken: bool,
    pub(super) remaining: u32,
    pub(super) retry_after_ms: u32,
}

/// Keys and values of one plugin. Every operation is atomic.
pub(super) struct Store {
    entries: Mutex<Entries>,
}

impl Store {
    /// An empty store.
    pub(super) fn new(config: KvConfig) -> Self {
        Self {
            entries: Mutex::new(Entries::new(config)),
        }
    }

    /// Takes other bounds. What is there stays, even where it is more than is allowed from now on.
    pub(super) fn set_config(&self, config: KvConfig) {
        self.lock().set_config(config);
    }

    /// Times are since any fixed moment.
    pub(super) fn get(&self, key: &str, now: Duration) -> Option<Vec<u8>> {
        let mut entries = self.lock();
        match &entries.live(key, now)?.value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            Value::Number(n) => Some(n.to_le_bytes().to_vec()),
            Value::Bucket(_) => None,
        }
    }

    /// Stores a value; `ttl_ms` 0 means for ever.
    pub(super) fn set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl_ms: u32,
        now: Duration,
    ) -> Result<(), KvError> {
        if value.len() > MOST_VALUE_BYTES {
            return Err(KvError::TooLarge);
        }
        let mut entries = self.lock();
        entries.put(key, Value::Bytes(value), until(ttl_ms, now), now)
    }

    /// Removes a key.
    pub(super) fn delete(&self, key: &str) {
        self.lock().remove(key);
    }

    /// Adds to a number, which begins at 0, and returns the sum.
    pub(super) fn add(
        &self,
        key: &str,
        delta: i64,
        ttl_ms: u32,
        now: Duration,
    ) -> Result<i64, KvError> {
        let mut entries = self.lock();
        if let Some(entry) = entries.live(key, now) {
            let before = match &entry.value {
                Value::Number(n) => *n,
                Value::Bytes(bytes) => {
                    let bytes = bytes.as_slice().try_into();
                    i64::from_le_bytes(bytes.map_err(|_| KvError::NotANumber)?)
                }
                Value::Bucket(_) => return Err(KvError::NotANumber),
            };
            // A number takes the 8 bytes that its key holds already.
            let after = before.saturating_add(delta);
            entry.value = Value::Number(after);
            return Ok(after);
        }
        entries.put(key, Value::Number(delta), until(ttl_ms, now), now)?;
        Ok(delta)
    }

    /// Takes tokens from a bucket, which begins full.
    pub(super) fn take(
        &self,
        key: &str,
        cost: u32,
        rate: Rate,
        now: Duration,
    ) -> Result<Taken, KvError> {
        let mut entries = self.lock();
        let (rate, size) = (f64::from(rate.per_minute), f64::from(rate.burst));
        // So long after its last use a bucket is full again: then it is the same as a new one.
        let refill = Duration::try_from_secs_f64(size * 60.0 / rate).unwrap_or(Duration::MAX);
        if entries.live(key, now).is_none() {
            let bucket = Bucket::full(size, now);
            entries.put(key, Value::Bucket(bucket), now.checked_add(refill), now)?;
        }
        let entry = entries.live(key, now).ok_or(KvError::Full)?;
        let Value::Bucket(bucket) = &mut entry.value else {
            return Err(KvError::NotANumber);
        };
        entry.until = now.checked_add(refill);
        let result = bucket.take(f64::from(cost), rate, size, now);
        let remaining = bucket.level(rate, size, now).max(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and burst, which is a u32"
        )]
        let remaining = remaining as u32;
        let retry_after_ms = match result {
            Ok(()) => 0,
            Err(None) => u32::MAX,
            Err(Some(wait)) => u32::try_from(wait.as_millis() + 1).unwrap_or(u32::MAX),
        };
        Ok(Taken {
            taken: result.is_ok(),
            remaining,
            retry_after_ms,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn until(ttl_ms: u32, now: Duration) -> Option<Duration> {
    (ttl_ms > 0).then(|| now + Duration::from_millis(ttl_ms.into()))
}

#[cfg(test)]
mod tests {
    use embedgate_config::ByteSize;

    use super::*;

    fn store(max_keys: usize) -> Store {
        Store::new(KvConfig {
            max_keys,
            max_size: ByteSize::mib(1),
        })
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn values_live_for_their_time() {
        let store = store(10);
        store.set("a", b"1".to_vec(), 100, at(0)).unwrap();
        store.set("b", b"2".to_vec(), 0, at(0)).unwrap();
        assert_eq!(store.get("a", at(99)).as_deref(), Some(&b"1"[..]));
        assert_eq!(store.get("a", at(100)), None);
        assert_eq!(store.get("b", at(1 << 40)).as_deref(), Some(&b"2"[..]));
        store.delete("b");
        assert_eq!(store.get("b", at(0)), None);
        assert_eq!(store.lock().bytes(), 0);
    }

    #[test]
    fn the_time_of_a_counter_begins_with_its_first_addition() {
        let store = store(10);
        assert_eq!(store.add("n", 2, 100, at(0)), Ok(2));
        assert_eq!(store.add("n", 3, 100, at(90)), Ok(5));
        assert_eq!(store.get("n", at(99)).unwrap(), 5_i64.to_le_bytes());
        assert_eq!(store.add("n", 1, 100, at(100)), Ok(1));
        store.set("text", b"x".to_vec(), 0, at(0)).unwrap();
        assert_eq!(store.add("text", 1, 0, at(0)), Err(KvError::NotANumber));
    }

    #[test]
    fn what_is_over_makes_room_and_nothing_else_does() {
        let store = store(2);
        store.set("a", vec![], 10, at(0)).unwrap();
        store.set("b", vec![], 0, at(0)).unwrap();
        assert_eq!(store.set("c", vec![], 0, at(5)), Err(KvError::Full));
        store.set("b", vec![0; 100], 0, at(5)).unwrap();
        assert_eq!(store.set("c", vec![], 0, at(10)), Ok(()));
        assert_eq!(
            store.set("d", vec![0; (64 << 10) + 1], 0, at(10)),
            Err(KvError::TooLarge)
        );
        store.delete("b");
        let long = "k".repeat(entries::MOST_KEY_BYTES + 1);
        assert_eq!(store.add(&long, 1, 0, at(10)), Err(KvError::TooLarge));
    }

    #[test]
    fn bytes_are_bounded() {
        let store = store(1000);
        let all = (0..1000).map(|i| store.set(&i.to_string(), vec![0; 32 << 10], 0, at(0)));
        let n_stored = all.filter(Result::is_ok).count();
        assert_eq!(n_stored, (1 << 20) / ((32 << 10) + 66));
        assert!(store.lock().bytes() <= 1 << 20);
    }

    #[test]
    fn a_bucket_says_what_is_left_and_when_there_is_more() {
        let store = store(10);
        let rate = |per_minute, burst| Rate { per_minute, burst };
        let take = |cost, ms| store.take("b", cost, rate(60, 3), at(ms)).unwrap();
        assert_eq!(
            take(2, 0),
            Taken {
                taken: true,
                remaining: 1,
                retry_after_ms: 0
            }
        );
        assert_eq!(
            take(2, 0),
            Taken {
                taken: false,
                remaining: 1,
                retry_after_ms: 1001
            }
        );
        assert_eq!(take(4, 0).retry_after_ms, u32::MAX);
        assert!(take(2, 1001).taken);
        // Forgotten when full again.
        assert_eq!(take(3, 60_000).remaining, 0);
        let nothing = store.take("never", 1, rate(0, 0), at(0)).unwrap();
        assert!(!nothing.taken);
    }
}
