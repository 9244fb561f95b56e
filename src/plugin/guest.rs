//! A loaded plugin: a component, its hooks, and calls of them, each in an instance of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use wasmtime::{
    Store, UpdateDeadline,
    component::{Instance, InstancePre},
};

use super::{
    bindings::exports::embedgate::plugin::{authenticator, lifecycle, observer, preprocessor},
    engine::GuestEngine,
    state::{Phase, Shared, State},
};
use crate::config::{Hook, InstanceConfig};

/// Idle instances of a plugin with `reuse`; more are dropped after their call.
const MOST_IDLE: usize = 16;
/// Handles of resources in an instance. The interface has none; WASI has few.
const MOST_HANDLES: usize = 100;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("all {0} instances are at work")]
    Busy(usize),
    #[error("took longer than {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("needs more memory than max_memory, {0} bytes")]
    Memory(usize, #[source] Reason),
    #[error("failed")]
    Trap(#[source] Reason),
    #[error("gave an illegal result: {0}")]
    Output(String),
}

impl Failure {
    /// As in the metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Busy(_) => "busy",
            Self::Timeout(_) => "timeout",
            Self::Memory(..) => "memory",
            Self::Trap(_) => "trap",
            Self::Output(_) => "output",
        }
    }
}

/// wasmtime's error, with its whole chain and the guest's backtrace.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct Reason(wasmtime::Error);

/// Raised in a guest when its time is over.
#[derive(Debug, thiserror::Error)]
#[error("the call's time is over")]
struct TimeIsOver;

/// The hooks that a component exports.
pub(super) struct Exports {
    pub(super) lifecycle: Option<lifecycle::GuestIndices>,
    pub(super) authenticator: Option<authenticator::GuestIndices>,
    pub(super) preprocessor: Option<preprocessor::GuestIndices>,
    pub(super) observer: Option<observer::GuestIndices>,
}

/// How an instance gets the state that `lifecycle.init` makes.
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
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
    pub(super) init: Init,
    pub(super) timeout: Duration,
    pub(super) lifetime: InstanceConfig,
    pub(super) n_instances: usize,
    pub(super) places: Semaphore,
    pub(super) idle: Mutex<Vec<Live>>,
}

/// An instance in its store.
pub(super) struct Live {
    pub(super) store: Store<State>,
    pub(super) instance: Instance,
    n_calls: u32,
}

/// What was measured of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CallCost {
    /// From its begin to its end, its instance included.
    pub(super) time: Duration,
    /// The most memory that its instance had, in bytes.
    pub(super) peak_memory: usize,
}

impl Guest {
    /// The hooks to call.
    pub(super) fn hooks(&self) -> impl Iterator<Item = Hook> {
        let has = [
            self.exports.authenticator.is_some(),
            self.exports.preprocessor.is_some(),
            self.exports.observer.is_some(),
        ];
        let with = Hook::ALL.into_iter().zip(has);
        with.filter_map(|(hook, has)| has.then_some(hook))
    }

    /// Calls a hook: `call` gets an instance and makes the call, all within the time that is left.
    pub(super) async fn call<R>(
        &self,
        hook: Hook,
        request_id: &Arc<str>,
        deadline: Instant,
        call: impl AsyncFnOnce(&Exports, &mut Live) -> wasmtime::Result<R>,
    ) -> (Result<R, Failure>, CallCost) {
        let started = Instant::now();
        let deadline = deadline.min(started + self.timeout);
        let mut cost = CallCost::default();
        let in_time = self.call_in_time(request_id, deadline, &mut cost, call);
        let over = || Failure::Timeout(deadline.saturating_duration_since(started));
        let result = match tokio::time::timeout_at(deadline.into(), in_time).await {
            Ok(result) => result,
            Err(_) => Err(over()),
        };
        let result = match result {
            Err(Failure::Trap(Reason(error))) if error.is::<TimeIsOver>() => Err(over()),
            result => result,
        };
        cost.time = started.elapsed();
        let metrics = self.shared.metrics.hook(hook);
        metrics.call(cost.time, cost.peak_memory);
        if let Err(failure) = &result {
            metrics.error(failure.kind());
        }
        (result, cost)
    }

    async fn call_in_time<R>(
        &self,
        request_id: &Arc<str>,
        deadline: Instant,
        cost: &mut CallCost,
        call: impl AsyncFnOnce(&Exports, &mut Live) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let _place = match self.places.try_acquire() {
            Ok(place) => place,
            // Time that runs out here is lack of places, not of speed.
            Err(_) => tokio::time::timeout_at(deadline.into(), self.places.acquire())
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(Failure::Busy(self.n_instances))?,
        };
        let _ticking = self.engine.ticker.call();
        let mut live = match self.take_idle() {
            Some(live) => live,
            None => self
                .instantiate(Phase::Call, deadline)
                .await
                .map_err(|(error, state)| failure(error, &state))?,
        };
        live.store.data_mut().begin(request_id, deadline);
        live.store.set_epoch_deadline(1);
        let result = call(&self.exports, &mut live).await;
        cost.peak_memory = live.store.data().peak_memory();
        match result {
            Ok(result) => {
                self.put_back(live);
                Ok(result)
            }
            Err(error) => Err(failure(error, live.store.data())),
        }
    }

    /// Makes an instance, with the state of `lifecycle.init`.
    pub(super) async fn instantiate(
        &self,
        phase: Phase,
        deadline: Instant,
    ) -> Result<Live, (wasmtime::Error, State)> {
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

    fn take_idle(&self) -> Option<Live> {
        match self.lifetime {
            InstanceConfig::Fresh => None,
            InstanceConfig::Reuse(_) => self.idle().pop(),
        }
    }

    /// Keeps an instance for the next call. One that trapped or was cut off never comes here.
    fn put_back(&self, mut live: Live) {
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

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Live>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    pub(super) fn new(store: Store<State>, instance: Instance) -> Self {
        Self {
            store,
            instance,
            n_calls: 0,
        }
    }

    /// Calls `lifecycle.init`; what the plugin has against its settings becomes an error.
    pub(super) async fn init(
        &mut self,
        lifecycle: &lifecycle::GuestIndices,
        settings: &str,
    ) -> wasmtime::Result<()> {
        let guest = lifecycle.load(&mut self.store, &self.instance)?;
        match guest.call_init(&mut self.store, settings).await? {
            Ok(()) => Ok(()),
            Err(message) => Err(wasmtime::Error::new(BadSettings(message))),
        }
    }
}

/// What a plugin has against its settings, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("refuses its settings: {0}")]
pub(super) struct BadSettings(pub(super) String);

fn failure(error: wasmtime::Error, state: &State) -> Failure {
    // A guest that gets no memory usually traps of itself.
    if state.is_memory_denied && !error.is::<TimeIsOver>() {
        return Failure::Memory(state.shared.max_memory, Reason(error));
    }
    Failure::Trap(Reason(error))
}

/// Makes a store with all its limits.
pub(super) fn store(
    engine: &GuestEngine,
    shared: &Arc<Shared>,
    phase: Phase,
    deadline: Instant,
) -> Store<State> {
    let max_transfer = shared.max_transfer;
    let state = State::new(Arc::clone(shared), phase, deadline);
    let mut store = Store::new(&engine.engine, state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(max_transfer);
    store.set_max_component_handles(MOST_HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        if Instant::now() >= store.data().deadline {
            return Err(TimeIsOver.into());
        }
        // tokio's own yield: it polls timers and sockets before it comes back, as wasmtime's does not.
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(tokio::task::yield_now()),
        ))
    });
    store
}
