//! A loaded plugin: a component, its hooks, and calls of them, each in an instance of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use embedgate_config::InstanceConfig;
use embedgate_request::Hook;
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::{
    PoolConcurrencyLimitError, Store, UpdateDeadline,
    component::{Instance, InstancePre},
};

use super::{
    bindings::exports::embedgate::plugin::{authenticator, lifecycle, observer, preprocessor},
    engine::GuestEngine,
    host::one_line,
    state::{Phase, Shared, State},
};
use crate::words::INIT_TIMEOUT;

/// The number of bytes that the host may copy out of a guest at once, in addition to the bytes for a request's own
/// size.
pub(super) const LEAST_TRANSFER: usize = 1 << 20;
/// Idle instances of a plugin with `reuse`; more are dropped after their call.
const MOST_IDLE: usize = 16;
/// Handles of resources in an instance. The interface has none; WASI has few.
const MOST_HANDLES: usize = 100;

/// The reasons why a call gave no result.
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
    #[error("was cut off at the end of the request's own time")]
    RequestIsOver,
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
            Self::RequestIsOver => "request_is_over",
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
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
    pub(super) init: Init,
    pub(super) timeout: Duration,
    pub(super) lifetime: InstanceConfig,
    pub(super) n_instances: usize,
    pub(super) places: Arc<Semaphore>,
    pub(super) idle: Mutex<Vec<Live>>,
}

/// An instance in its store.
pub(super) struct Live {
    pub(super) store: Store<State>,
    pub(super) instance: Instance,
    n_calls: u32,
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
pub(super) struct Terms<'a> {
    pub(super) hook: Hook,
    pub(super) request_id: &'a Arc<str>,
    /// The time at which the request's own time is over.
    pub(super) deadline: Instant,
    /// Bytes that the host copies out of the guest at once.
    pub(super) max_transfer: usize,
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
        terms: &Terms<'_>,
        call: impl AsyncFnOnce(&Exports, &mut Live) -> wasmtime::Result<R>,
    ) -> (Result<R, Failure>, Cost) {
        let started = Instant::now();
        let mut cost = Cost::default();
        let result = self.call_in_time(terms, &mut cost, call).await;
        cost.time = started.elapsed();
        let metrics = self.shared.metrics.hook(terms.hook);
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
        terms: &Terms<'_>,
        cost: &mut Cost,
        call: impl AsyncFnOnce(&Exports, &mut Live) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let deadline = terms.deadline.min(Instant::now() + self.timeout);
        let _places = self.places(terms, deadline).await?;
        let _ticking = self.engine.ticker.call();
        let mut live = match self.take_idle() {
            Some(live) => live,
            None => self.instantiate_in_time(terms, deadline).await?,
        };
        // An engine that takes long to start does not take it from the call's time.
        let deadline = match self.init {
            Init::Done => deadline,
            Init::EachInstance(_) => terms.deadline.min(Instant::now() + self.timeout),
        };
        let store = &mut live.store;
        store
            .data_mut()
            .begin(terms.hook, terms.request_id, deadline);
        store.set_hostcall_fuel(terms.max_transfer);
        store.set_epoch_deadline(1);
        let called = tokio::time::timeout_at(deadline.into(), call(&self.exports, &mut live)).await;
        cost.peak_memory = live.store.data().peak_memory();
        match called {
            Ok(Ok(result)) => {
                self.put_back(live);
                Ok(result)
            }
            Ok(Err(error)) => Err(self.failure(error, live.store.data(), terms, deadline)),
            Err(_) => Err(self.over(terms, deadline)),
        }
    }

    /// Counts an answer that the guest gave in time and that breaks the rules.
    pub(super) fn count_illegal<T>(&self, hook: Hook, checked: &Result<T, Failure>) {
        if let Err(failure @ Failure::Output(_)) = checked {
            self.shared.metrics.hook(hook).error(failure.kind());
        }
    }

    /// A place among the plugin's instances, and one among all.
    async fn places(
        &self,
        terms: &Terms<'_>,
        deadline: Instant,
    ) -> Result<[SemaphorePermit<'_>; 2], Failure> {
        let (own, all) = (&self.places, &self.engine.places);
        if let (Ok(own), Ok(all)) = (own.try_acquire(), all.try_acquire()) {
            return Ok([own, all]);
        }
        let both = async { (own.acquire().await, all.acquire().await) };
        match tokio::time::timeout_at(deadline.into(), both).await {
            Ok((Ok(own), Ok(all))) => Ok([own, all]),
            _ if deadline == terms.deadline => Err(Failure::RequestIsOver),
            _ => Err(Failure::Busy(self.n_instances)),
        }
    }

    async fn instantiate_in_time(
        &self,
        terms: &Terms<'_>,
        deadline: Instant,
    ) -> Result<Live, Failure> {
        let deadline = match self.init {
            Init::Done => deadline,
            Init::EachInstance(_) => terms.deadline.min(Instant::now() + INIT_TIMEOUT),
        };
        let making = self.instantiate(Phase::Call, deadline);
        match tokio::time::timeout_at(deadline.into(), making).await {
            Ok(Ok(live)) => Ok(live),
            Ok(Err((error, state))) => Err(self.failure(error, &state, terms, deadline)),
            Err(_) => Err(self.over(terms, deadline)),
        }
    }

    fn over(&self, terms: &Terms<'_>, deadline: Instant) -> Failure {
        if deadline == terms.deadline {
            Failure::RequestIsOver
        } else {
            Failure::Timeout(self.timeout)
        }
    }

    fn failure(
        &self,
        error: wasmtime::Error,
        state: &State,
        terms: &Terms<'_>,
        deadline: Instant,
    ) -> Failure {
        if error.is::<TimeIsOver>() {
            return self.over(terms, deadline);
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
    pub(super) fn put_back(&self, mut live: Live) {
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
            Err(message) => Err(wasmtime::Error::new(BadSettings(one_line(&message)))),
        }
    }
}

/// Says of a load that ran out of time or memory what it was.
pub(super) fn at_load(
    error: wasmtime::Error,
    state: &State,
    init_timeout: Duration,
) -> anyhow::Error {
    if state.is_memory_denied {
        let mib = state.shared.max_memory >> 20;
        return anyhow::Error::from(error).context(format!(
            "needs more than its max_memory of {mib}MiB to begin"
        ));
    }
    if error.is::<TimeIsOver>() {
        return anyhow::anyhow!("lifecycle.init takes longer than {init_timeout:?}");
    }
    state.explain(error).into()
}

/// The complaint of a plugin about its settings, in the plugin's own words.
#[derive(Debug, thiserror::Error)]
#[error("refuses its settings: {0}")]
pub(super) struct BadSettings(String);

/// Makes a store with all its limits.
pub(super) fn store(
    engine: &GuestEngine,
    shared: &Arc<Shared>,
    phase: Phase,
    deadline: Instant,
) -> Store<State> {
    let state = State::new(Arc::clone(shared), phase, deadline);
    let mut store = Store::new(&engine.engine, state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(LEAST_TRANSFER);
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
