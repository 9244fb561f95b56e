//! A loaded plugin: a component, its hooks, and calls of them, each in an instance of its own.

mod instances;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use embedgate_config::InstanceConfig;
use embedgate_request::Hook;
use tokio::sync::Semaphore;
use wasmtime::{PoolConcurrencyLimitError, component::InstancePre};

use super::{
    engine::GuestEngine,
    exports::Exports,
    failure::{Failure, Reason, TimeIsOver},
    instance::Live,
    shared::Shared,
    state::GuestState,
};

/// The way in which an instance gets the state that `lifecycle.init` makes.
pub(super) enum Init {
    /// It is in the component's own data, or there is nothing to make.
    Done,
    /// It is called in each instance, with these settings.
    EachInstance(String),
}

/// A component that is ready to be called.
pub(super) struct Guest {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Arc<GuestEngine>,
    pub(super) pre: InstancePre<GuestState>,
    pub(super) exports: Exports,
    pub(super) init: Init,
    pub(super) timeout: Duration,
    pub(super) lifetime: InstanceConfig,
    pub(super) n_instances: usize,
    pub(super) places: Arc<Semaphore>,
    pub(super) idle: Mutex<Vec<Live>>,
}

/// The measurements of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// From its begin to its end, its instance included.
    pub time: Duration,
    /// The most memory that its instance had, in bytes.
    pub peak_memory: usize,
}

/// The hook and the request of a call, and its bounds.
pub(super) struct CallBudget<'a> {
    pub(super) hook: Hook,
    pub(super) request_id: &'a Arc<str>,
    /// The time at which the request's own time is over.
    pub(super) deadline: Instant,
    /// Bytes that the host copies out of the guest at once.
    pub(super) max_transfer: usize,
}

impl Guest {
    /// Calls a hook: `call` gets an instance and makes the call, all within the time that is left.
    pub(super) async fn call<R>(
        &self,
        budget: &CallBudget<'_>,
        call: impl AsyncFnOnce(&Exports, &mut Live) -> wasmtime::Result<R>,
    ) -> (Result<R, Failure>, Cost) {
        let started = Instant::now();
        let mut cost = Cost::default();
        let result = self.call_in_time(budget, &mut cost, call).await;
        cost.time = started.elapsed();
        let metrics = self.shared.metrics.hook(budget.hook);
        metrics.call(cost.time);
        match &result {
            // The client gave it no time: that says nothing about the plugin.
            Ok(_) | Err(Failure::RequestIsOver) => {}
            Err(failure) => metrics.error(failure.kind()),
        }
        (result, cost)
    }

    async fn call_in_time<R>(
        &self,
        budget: &CallBudget<'_>,
        cost: &mut Cost,
        call: impl AsyncFnOnce(&Exports, &mut Live) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let deadline = budget.deadline.min(Instant::now() + self.timeout);
        let _places = self.places(budget, deadline).await?;
        let _ticking = self.engine.ticker.call();
        let mut live = match self.take_idle() {
            Some(live) => live,
            None => self.instantiate_in_time(budget, deadline).await?,
        };
        // An engine that takes long to start does not take it from the call's time.
        let deadline = match self.init {
            Init::Done => deadline,
            Init::EachInstance(_) => budget.deadline.min(Instant::now() + self.timeout),
        };
        let store = &mut live.store;
        store
            .data_mut()
            .begin(budget.hook, budget.request_id, deadline);
        store.set_hostcall_fuel(budget.max_transfer);
        store.set_epoch_deadline(1);
        let called = tokio::time::timeout_at(deadline.into(), call(&self.exports, &mut live)).await;
        cost.peak_memory = live.store.data().peak_memory();
        match called {
            Ok(Ok(result)) => {
                self.put_back(live);
                Ok(result)
            }
            Ok(Err(error)) => Err(self.failure(error, live.store.data(), budget, deadline)),
            Err(_) => Err(self.over(budget, deadline)),
        }
    }

    /// Counts an answer that the guest gave in time and that breaks the rules.
    pub(super) fn count_illegal<T>(&self, hook: Hook, checked: &Result<T, Failure>) {
        if let Err(failure @ Failure::Output(_)) = checked {
            self.shared.metrics.hook(hook).error(failure.kind());
        }
    }

    fn over(&self, budget: &CallBudget<'_>, deadline: Instant) -> Failure {
        if deadline == budget.deadline {
            Failure::RequestIsOver
        } else {
            Failure::Timeout(self.timeout)
        }
    }

    fn failure(
        &self,
        error: wasmtime::Error,
        state: &GuestState,
        budget: &CallBudget<'_>,
        deadline: Instant,
    ) -> Failure {
        if error.is::<TimeIsOver>() {
            return self.over(budget, deadline);
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Failure::Busy(self.n_instances);
        }
        let error = Reason(state.explain(error));
        // A guest that gets no memory usually traps of itself.
        if state.is_memory_denied {
            return Failure::Memory(self.shared.max_memory, error);
        }
        Failure::Trap(error)
    }
}
