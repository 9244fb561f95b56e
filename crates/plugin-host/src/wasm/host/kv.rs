//! The store of a guest.

use std::time::Duration;

use wasmtime::Result;

use crate::wasm::{
    bindings::embedgate::plugin::kv,
    kv::{KvError, Rate, Store, Taken},
    shared::not_granted,
    state::{GuestState, Phase},
};

impl GuestState {
    fn kv(&mut self) -> Result<(&Store, Duration)> {
        self.outer_call("kv")?;
        self.is_impure = true;
        let now = self.shared.clock.monotonic();
        match &self.shared.grants.kv {
            Some(_) if self.phase == Phase::WarmUp => Ok((&self.shared.scratch, now)),
            Some(store) => Ok((store, now)),
            None => Err(not_granted(&self.shared.name, "kv")),
        }
    }
}

impl From<KvError> for kv::KvError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full => Self::Full,
            KvError::TooLarge => Self::TooLarge,
            KvError::NotANumber => Self::NotANumber,
        }
    }
}

impl kv::Host for GuestState {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        let (store, now) = self.kv()?;
        Ok(store.get(&key, now))
    }

    fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: u32,
    ) -> Result<std::result::Result<(), kv::KvError>> {
        let (store, now) = self.kv()?;
        Ok(store.set(&key, value, ttl_ms, now).map_err(Into::into))
    }

    fn delete(&mut self, key: String) -> Result<()> {
        let (store, _) = self.kv()?;
        store.delete(&key);
        Ok(())
    }

    fn add(
        &mut self,
        key: String,
        delta: i64,
        ttl_ms: u32,
    ) -> Result<std::result::Result<i64, kv::KvError>> {
        let (store, now) = self.kv()?;
        Ok(store.add(&key, delta, ttl_ms, now).map_err(Into::into))
    }

    fn take(
        &mut self,
        key: String,
        cost: u32,
        per_minute: u32,
        burst: u32,
    ) -> Result<std::result::Result<kv::Bucket, kv::KvError>> {
        let (store, now) = self.kv()?;
        let taken = store.take(&key, cost, Rate { per_minute, burst }, now);
        let bucket = |taken: Taken| kv::Bucket {
            taken: taken.taken,
            remaining: taken.remaining,
            retry_after_ms: taken.retry_after_ms,
        };
        Ok(taken.map(bucket).map_err(Into::into))
    }
}
