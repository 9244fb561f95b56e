//! The test host's keys and values: what the gateway's do, without its locks.

use std::collections::BTreeMap;

use crate::kv::{Bucket, KvError, Rate};

/// One plugin's namespace.
#[derive(Debug)]
pub(crate) struct Store {
    max_keys: usize,
    max_bytes: usize,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    expires_ms: Option<u64>,
}

/// Tokens are counted in sixty-thousandths: a rate of one a minute gains one of them a millisecond.
const TOKEN: u64 = 60_000;

impl Store {
    pub(crate) fn new(max_keys: usize, max_bytes: usize) -> Self {
        Self {
            max_keys,
            max_bytes,
            entries: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&mut self, key: &str, now_ms: u64) -> Option<Vec<u8>> {
        self.expire(now_ms);
        self.entries.get(key).map(|entry| entry.value.clone())
    }

    pub(crate) fn set(
        &mut self,
        key: &str,
        value: &[u8],
        ttl_ms: u32,
        now_ms: u64,
    ) -> Result<(), KvError> {
        self.put(key, value.to_vec(), expiry(ttl_ms, now_ms), now_ms)
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.entries.remove(key);
    }

    pub(crate) fn add(
        &mut self,
        key: &str,
        delta: i64,
        ttl_ms: u32,
        now_ms: u64,
    ) -> Result<i64, KvError> {
        self.expire(now_ms);
        let (value, expires_ms) = match self.entries.get(key) {
            Some(entry) => (number(&entry.value)?, entry.expires_ms),
            None => (0, expiry(ttl_ms, now_ms)),
        };
        let sum = value.saturating_add(delta);
        self.put(key, sum.to_le_bytes().to_vec(), expires_ms, now_ms)?;
        Ok(sum)
    }

    /// Keeps a bucket as 16 bytes: its level, and when it had that.
    pub(crate) fn take(
        &mut self,
        key: &str,
        cost: u32,
        rate: Rate,
        now_ms: u64,
    ) -> Result<Bucket, KvError> {
        // A namespace of its own, so that a bucket and a value of one key do not meet.
        let key = format!("bucket\0{key}");
        let full = u64::from(rate.burst) * TOKEN;
        let cost_parts = u64::from(cost) * TOKEN;
        let mut level = match self.get(&key, now_ms) {
            Some(bytes) => {
                let (level, since_ms) = bytes.split_at(8);
                let gained =
                    (now_ms - unsigned(since_ms)).saturating_mul(u64::from(rate.per_minute));
                unsigned(level).saturating_add(gained).min(full)
            }
            None => full,
        };
        let taken = level >= cost_parts;
        let retry_after_ms = if taken {
            0
        } else if cost > rate.burst || rate.per_minute == 0 {
            u32::MAX
        } else {
            u32::try_from((cost_parts - level).div_ceil(u64::from(rate.per_minute)))
                .unwrap_or(u32::MAX)
        };
        if taken {
            level -= cost_parts;
        }
        self.put(
            &key,
            [level.to_le_bytes(), now_ms.to_le_bytes()].concat(),
            None,
            now_ms,
        )?;
        let remaining = u32::try_from(level / TOKEN).expect("a level is at most the burst");
        Ok(Bucket {
            taken,
            remaining,
            retry_after_ms,
        })
    }

    fn put(
        &mut self,
        key: &str,
        value: Vec<u8>,
        expires_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), KvError> {
        if key.len() > 1024 || value.len() > 64 * 1024 {
            return Err(KvError::TooLarge);
        }
        self.expire(now_ms);
        let others = self.entries.iter().filter(|(other, _)| *other != key);
        let (n_keys, n_bytes) = others.fold(
            (1, key.len() + value.len()),
            |(n_keys, n_bytes), (key, entry)| (n_keys + 1, n_bytes + key.len() + entry.value.len()),
        );
        if n_keys > self.max_keys || n_bytes > self.max_bytes {
            return Err(KvError::Full);
        }
        self.entries
            .insert(key.to_owned(), Entry { value, expires_ms });
        Ok(())
    }

    fn expire(&mut self, now_ms: u64) {
        self.entries.retain(|_, entry| {
            entry
                .expires_ms
                .is_none_or(|expires_ms| now_ms < expires_ms)
        });
    }
}

fn expiry(ttl_ms: u32, now_ms: u64) -> Option<u64> {
    (ttl_ms > 0).then(|| now_ms + u64::from(ttl_ms))
}

fn number(bytes: &[u8]) -> Result<i64, KvError> {
    bytes
        .try_into()
        .map(i64::from_le_bytes)
        .map_err(|_| KvError::NotANumber)
}

fn unsigned(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(
        bytes
            .try_into()
            .expect("a bucket has two numbers of 8 bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_from_its_first_addition() {
        let mut store = Store::new(10, 1000);
        assert_eq!(store.add("n", 2, 100, 0), Ok(2));
        assert_eq!(store.add("n", 3, 100, 99), Ok(5));
        assert_eq!(store.add("n", 4, 100, 100), Ok(4));
    }

    #[test]
    fn room_is_counted_without_what_expired() {
        let mut store = Store::new(1, 1000);
        assert_eq!(store.set("a", b"1", 10, 0), Ok(()));
        assert_eq!(store.set("b", b"1", 10, 9), Err(KvError::Full));
        assert_eq!(store.set("a", b"2", 10, 9), Ok(()));
        assert_eq!(store.set("b", b"1", 10, 19), Ok(()));
        assert_eq!(store.set("b", &[0; 998], 10, 19), Ok(()));
        assert_eq!(store.set("b", &[0; 1000], 10, 19), Err(KvError::Full));
        assert_eq!(store.set("b", &[0; 65_537], 10, 19), Err(KvError::TooLarge));
        assert_eq!(store.add("b", 1, 0, 19), Err(KvError::NotANumber));
    }

    #[test]
    fn a_bucket_fills_at_its_rate_up_to_its_burst() {
        let mut store = Store::new(10, 1000);
        let rate = Rate {
            per_minute: 60,
            burst: 2,
        };
        let mut take = |cost, now_ms| {
            let bucket = store.take("b", cost, rate, now_ms).expect("room");
            (bucket.taken, bucket.remaining, bucket.retry_after_ms)
        };
        assert_eq!(take(1, 0), (true, 1, 0));
        assert_eq!(take(1, 0), (true, 0, 0));
        assert_eq!(take(1, 400), (false, 0, 600));
        assert_eq!(take(1, 1000), (true, 0, 0));
        assert_eq!(take(3, 60_000), (false, 2, u32::MAX));
    }
}
