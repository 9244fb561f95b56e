//! The entries of a store, which together stay within its bounds.

use std::{collections::HashMap, time::Duration};

use embedgate_config::KvConfig;
use embedgate_request::limits::Bucket;

use super::KvError;

/// Counted for an entry beside its key and value.
const ENTRY_BYTES: usize = 64;
/// The longest key.
pub(super) const MOST_KEY_BYTES: usize = 1 << 10;

/// Keys and their values, and the bytes that they count for.
pub(super) struct Entries {
    config: KvConfig,
    by_key: HashMap<String, Entry>,
    bytes: usize,
}

/// An entry, and when it ends.
pub(super) struct Entry {
    pub(super) value: Value,
    /// The time at which the entry expires.
    pub(super) until: Option<Duration>,
}

/// A value of an entry.
pub(super) enum Value {
    Bytes(Vec<u8>),
    Number(i64),
    Bucket(Bucket),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_) | Self::Bucket(_) => 8,
        }
    }
}

/// Returns the bytes that an entry counts for.
fn entry_bytes(key: &str, value: &Value) -> usize {
    key.len() + value.bytes() + ENTRY_BYTES
}

impl Entries {
    /// No entries.
    pub(super) fn new(config: KvConfig) -> Self {
        Self {
            config,
            by_key: HashMap::new(),
            bytes: 0,
        }
    }

    /// Takes other bounds. What is there stays.
    pub(super) fn set_config(&mut self, config: KvConfig) {
        self.config = config;
    }

    /// Bytes that all entries count for.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry of a key, unless it is over.
    pub(super) fn live(&mut self, key: &str, now: Duration) -> Option<&mut Entry> {
        let is_over = self
            .by_key
            .get(key)?
            .until
            .is_some_and(|until| until <= now);
        if is_over {
            self.remove(key);
            return None;
        }
        self.by_key.get_mut(key)
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &str) {
        if let Some(entry) = self.by_key.remove(key) {
            self.bytes -= entry_bytes(key, &entry.value);
        }
    }

    /// Puts a value in the place of the one before.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: Value,
        until: Option<Duration>,
        now: Duration,
    ) -> Result<(), KvError> {
        if key.len() > MOST_KEY_BYTES {
            return Err(KvError::TooLarge);
        }
        let old = self
            .by_key
            .get(key)
            .map(|entry| entry_bytes(key, &entry.value));
        let (n, bytes) = (usize::from(old.is_none()), entry_bytes(key, &value));
        let config = self.config;
        let fits = |entries: &Self| {
            entries.by_key.len() + n <= config.max_keys
                && entries.bytes - old.unwrap_or(0) + bytes <= config.max_size.bytes()
        };
        if !fits(self) {
            self.sweep(now);
            // The key itself may have been swept: then nothing of it counts any more.
            if !self.by_key.contains_key(key) && old.is_some() {
                return self.put(key, value, until, now);
            }
            if !fits(self) {
                return Err(KvError::Full);
            }
        }
        self.bytes = self.bytes - old.unwrap_or(0) + bytes;
        self.by_key.insert(key.to_owned(), Entry { value, until });
        Ok(())
    }

    /// Drops what is over.
    fn sweep(&mut self, now: Duration) {
        let mut bytes = 0;
        self.by_key.retain(|key, entry| {
            let is_over = entry.until.is_some_and(|until| until <= now);
            if is_over {
                bytes += entry_bytes(key, &entry.value);
            }
            !is_over
        });
        self.bytes -= bytes;
    }
}
