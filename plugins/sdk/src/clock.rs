//! The time. `std::time` has none in a guest.

use std::time::Duration;

use crate::host::clock;

/// Returns milliseconds since 1970 in UTC, by the gateway's clock.
pub fn unix_ms() -> u64 {
    clock::unix_ms()
}

/// Returns the time since 1970 in UTC.
pub fn since_epoch() -> Duration {
    Duration::from_millis(unix_ms())
}

/// Returns nanoseconds of a clock that never goes back; only differences mean something.
pub fn monotonic_ns() -> u64 {
    clock::monotonic_ns()
}
