//! The instances of a guest: their places, those that are used again, and new ones.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Instant,
};

use embedgate_config::InstanceConfig;
use tokio::sync::SemaphorePermit;

use super::{CallBudget, Guest, Init};
use crate::{
    interface::INIT_TIMEOUT,
    wasm::{
        failure::Failure,
        instance::{Live, store},
        state::{GuestState, Phase},
    },
};

/// Idle instances of a plugin with `reuse`; more are dropped after their call.
const MOST_IDLE: usize = 16;

impl Guest {
    /// A place among the plugin's instances, and one among all.
    pub(super) async fn places(
        &self,
        budget: &CallBudget<'_>,
        deadline: Instant,
    ) -> Result<[SemaphorePermit<'_>; 2], Failure> {
        let (own, all) = (&self.places, &self.engine.places);
        if let (Ok(own), Ok(all)) = (own.try_acquire(), all.try_acquire()) {
            return Ok([own, all]);
        }
        let both = async { (own.acquire().await, all.acquire().await) };
        match tokio::time::timeout_at(deadline.into(), both).await {
            Ok((Ok(own), Ok(all))) => Ok([own, all]),
            _ if deadline == budget.deadline => Err(Failure::RequestIsOver),
            _ => Err(Failure::Busy(self.n_instances)),
        }
    }

    /// Makes an instance for a call, within its time.
    pub(super) async fn instantiate_in_time(
        &self,
        budget: &CallBudget<'_>,
        deadline: Instant,
    ) -> Result<Live, Failure> {
        let deadline = match self.init {
            Init::Done => deadline,
            Init::EachInstance(_) => budget.deadline.min(Instant::now() + INIT_TIMEOUT),
        };
        let making = self.instantiate(Phase::Call, deadline);
        match tokio::time::timeout_at(deadline.into(), making).await {
            Ok(Ok(live)) => Ok(live),
            Ok(Err((error, state))) => Err(self.failure(error, &state, budget, deadline)),
            Err(_) => Err(self.over(budget, deadline)),
        }
    }

    /// Makes an instance, with the state of `lifecycle.init`.
    pub(in crate::wasm) async fn instantiate(
        &self,
        phase: Phase,
        deadline: Instant,
    ) -> Result<Live, (wasmtime::Error, GuestState)> {
        let mut store = store(&self.engine, &self.shared, phase, deadline);
        let instance = match self.pre.instantiate_async(&mut store).await {
            Ok(instance) => instance,
            Err(error) => return Err((error, store.into_data())),
        };
        let mut live = Live::new(store, instance);
        if let (Init::EachInstance(settings), Some(lifecycle)) =
            (&self.init, &self.exports.lifecycle)
        {
            live.store.data_mut().phase = Phase::Init;
            if let Err(error) = live.init(lifecycle, settings).await {
                return Err((error, live.store.into_data()));
            }
            live.store.data_mut().phase = phase;
        }
        Ok(live)
    }

    /// Takes an instance that waits to be used again.
    pub(super) fn take_idle(&self) -> Option<Live> {
        match self.lifetime {
            InstanceConfig::Fresh => None,
            InstanceConfig::Reuse(_) => self.idle().pop(),
        }
    }

    /// Keeps an instance for the next call. One that trapped or was cut off never comes here.
    pub(in crate::wasm) fn put_back(&self, mut live: Live) {
        live.n_calls += 1;
        if let InstanceConfig::Reuse(n) = self.lifetime
            && live.n_calls < n.get()
        {
            let mut idle = self.idle();
            if idle.len() < MOST_IDLE {
                idle.push(live);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Live>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
