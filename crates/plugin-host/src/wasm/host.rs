//! The functions that guests import: each checks the grant and the call's budget, and calls the module that does the
//! work. The larger interfaces have files of their own.

mod crypto;
mod http;
mod kv;
mod log;
mod metrics;

use wasmtime::{Result, bail};

use super::{
    bindings::embedgate::plugin::{clock, random, secrets, types},
    state::{GuestState, Phase},
};

/// Bytes of randomness in one call.
const MOST_RANDOM: u32 = 4096;

impl types::Host for GuestState {}

impl clock::Host for GuestState {
    fn unix_ms(&mut self) -> Result<u64> {
        self.host_call()?;
        self.is_impure = true;
        Ok(self.shared.clock.unix_ms())
    }

    fn monotonic_ns(&mut self) -> Result<u64> {
        self.host_call()?;
        self.is_impure = true;
        let ns = self.shared.clock.monotonic().as_nanos();
        Ok(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

impl random::Host for GuestState {
    fn bytes(&mut self, n: u32) -> Result<Vec<u8>> {
        self.host_call()?;
        self.is_impure = true;
        if n > MOST_RANDOM {
            bail!("random.bytes gives at most {MOST_RANDOM} bytes a call, {n} were asked for");
        }
        let mut bytes = vec![0; n as usize];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }
}

impl secrets::Host for GuestState {
    fn get(&mut self, name: String) -> Result<Option<String>> {
        self.host_call()?;
        self.is_impure = true;
        if self.phase == Phase::WarmUp {
            // The snapshot must not hold what only calls may know.
            return Ok(None);
        }
        let secret = self.shared.grants.secrets.get(&name);
        Ok(secret.map(|secret| secret.expose().to_owned()))
    }
}
