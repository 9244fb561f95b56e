//! An instance of a component, in a store with all its limits.

use std::{sync::Arc, time::Instant};

use wasmtime::{Store, UpdateDeadline, component::Instance};

use super::{
    bindings::exports::embedgate::plugin::lifecycle,
    engine::GuestEngine,
    failure::{BadSettings, TimeIsOver},
    line::one_line,
    shared::Shared,
    state::{GuestState, Phase},
};

/// The number of bytes that the host may copy out of a guest at once, in addition to the bytes for a request's own
/// size.
pub(super) const LEAST_TRANSFER: usize = 1 << 20;
/// Handles of resources in an instance. The interface has none; WASI has few.
const MOST_HANDLES: usize = 100;

/// An instance in its store.
pub(super) struct Live {
    pub(super) store: Store<GuestState>,
    pub(super) instance: Instance,
    /// Calls that it has made.
    pub(super) n_calls: u32,
}

impl Live {
    /// An instance that has made no call.
    pub(super) fn new(store: Store<GuestState>, instance: Instance) -> Self {
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

/// Makes a store with all its limits.
pub(super) fn store(
    engine: &GuestEngine,
    shared: &Arc<Shared>,
    phase: Phase,
    deadline: Instant,
) -> Store<GuestState> {
    let state = GuestState::new(Arc::clone(shared), phase, deadline);
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
