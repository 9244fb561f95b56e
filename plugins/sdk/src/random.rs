//! Randomness from the host's generator for secrets.

use crate::host::random;

/// Returns `n` random bytes; more than 4096 end the call.
pub fn bytes(n: u32) -> Vec<u8> {
    random::bytes(n)
}

/// Returns a random number.
pub fn number() -> u64 {
    // The host returns as many bytes as it was asked for.
    bytes(8)
        .iter()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}
