//! Values that outlive a call: one namespace a plugin, shared by its instances, gone with the gateway's process.
//!
//! Grant: `kv = { max_size = "8MiB", max_keys = 10000 }`.

use std::time::Duration;

use crate::host::kv;

pub use crate::bindings::host::embedgate::plugin::kv::{Bucket, KvError};

/// How fast a token bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a minute.
    pub per_minute: u32,
    /// Tokens that a full bucket holds; it begins full.
    pub burst: u32,
}

/// Returns a value that has not expired.
pub fn get(key: &str) -> Option<Vec<u8>> {
    kv::get(key)
}

/// Keeps a value for `ttl`, or until it is deleted.
///
/// # Errors
/// [`KvError::Full`] where the grant has no room, [`KvError::TooLarge`] for keys over 1 KiB and values over 64 KiB.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), KvError> {
    kv::set(key, value, ttl.map_or(0, to_ms))
}

/// Deletes a value, if it is there.
pub fn delete(key: &str) {
    kv::delete(key);
}

/// Adds to a number atomically and returns the sum. A new key begins at 0 and lives for `ttl` from then on.
///
/// # Errors
/// As [`set`], and [`KvError::NotANumber`] where `set` put something else than 8 bytes, little-endian.
pub fn add(key: &str, delta: i64, ttl: Option<Duration>) -> Result<i64, KvError> {
    kv::add(key, delta, ttl.map_or(0, to_ms))
}

/// Takes `cost` tokens from a bucket, all or none.
///
/// # Errors
/// As [`set`].
pub fn take(key: &str, cost: u32, rate: Rate) -> Result<Bucket, KvError> {
    kv::take(key, cost, rate.per_minute, rate.burst)
}

/// Converts to what the interface counts in: at least 1, because 0 has a meaning of its own, and at most 49 days.
pub(crate) fn to_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}
