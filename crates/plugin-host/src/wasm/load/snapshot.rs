//! The state of a plugin after `lifecycle.init` and a first call, put into the component itself.
//!
//! Instances of that component begin where the first call ended: the settings are read, the heap has its size. Then a fresh
//! instance for each call costs microseconds, and takes no lock of the kernel.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use anyhow::Context;
use wasmtime::{
    Store,
    component::{ComponentNamedList, Lift, WasmList},
};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use super::{
    Candidate, Loader,
    first::{FailedCall, First, Initialized, WarmUp, block_on},
};
use crate::wasm::{failure::BadSettings, state::GuestState};

/// A component with the state of a plugin in it, or none.
pub(super) enum Snapshot {
    /// A component's bytes.
    Taken {
        bytes: Vec<u8>,
        /// True when the snapshot is the same at each start, and holds no secret.
        may_keep: bool,
    },
    /// The component is built in a way that the snapshot does not know.
    Impossible,
}

/// Takes the snapshot of a plugin.
pub(super) fn take(loader: &Loader, candidate: &Candidate<'_>) -> anyhow::Result<Snapshot> {
    let name = &candidate.shared.name;
    let wizer = Wizer::new();
    let (context, instrumented) = match wizer.instrument_component(candidate.bytes) {
        Ok(instrumented) => instrumented,
        Err(error) => {
            tracing::debug!("no snapshot of plugin {name}: {error:#}");
            return Ok(Snapshot::Impossible);
        }
    };
    // Where the instrumented code is wrong, the plugin's own may well be right.
    let Ok(component) = loader.compile(&instrumented) else {
        return Ok(Snapshot::Impossible);
    };
    let mut state = None;
    for warm_up in [WarmUp::Yes, WarmUp::No] {
        let first = First {
            loader,
            candidate,
            component: &component,
        };
        match block_on(first.run(warm_up)) {
            Ok(found) => {
                state = Some(found);
                break;
            }
            // What the plugin has against its settings, it has again.
            Err(error)
                if warm_up == WarmUp::Yes
                    && !error.is::<BadSettings>()
                    && !error.is::<FailedCall>() =>
            {
                tracing::debug!("plugin {name} cannot be warmed up: {error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    let mut state = state.context("the plugin's state cannot be read")?;
    let may_keep = !state.store.data().is_impure;
    // Reading takes a page of the guest's memory, and passes all of it at once.
    state.store.data_mut().deadline = Instant::now() + loader.init_timeout;
    state.store.data_mut().spare_memory = 1 << 20;
    state.store.set_hostcall_fuel(usize::MAX);
    // A guest can be built so that it cannot be read, such as one whose memory is full: then the reader panics.
    let read = AssertUnwindSafe(|| block_on(wizer.snapshot_component(&context, &mut state)));
    match catch_unwind(read) {
        Ok(Ok(bytes)) => Ok(Snapshot::Taken { bytes, may_keep }),
        Ok(Err(_)) | Err(_) => Ok(Snapshot::Impossible),
    }
}

impl Initialized {
    /// Calls one of the functions that the instrumentation added.
    async fn get<R, U>(
        &mut self,
        instance: &str,
        func: &str,
        read: impl FnOnce(&Store<GuestState>, R) -> U,
    ) -> U
    where
        R: Lift + Send + 'static,
        (R,): ComponentNamedList,
    {
        const ADDED: &str = "the instrumentation added it";
        let Self {
            store,
            instance: of,
        } = self;
        let parent = of
            .get_export_index(&mut *store, None, instance)
            .expect(ADDED);
        let index = of
            .get_export_index(&mut *store, Some(&parent), func)
            .expect(ADDED);
        let func = of
            .get_typed_func::<(), (R,)>(&mut *store, &index)
            .expect(ADDED);
        let (value,) = func
            .call_async(&mut *store, ())
            .await
            .expect("it only reads");
        read(store, value)
    }
}

impl ComponentInstanceState for Initialized {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        self.get(instance, func, |store, list: WasmList<u8>| {
            contents(list.as_le_slice(store));
        })
        .await;
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.get(instance, func, |_, value| value).await
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.get(instance, func, |_, value| value).await
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.get(instance, func, |_, value: f32| value.to_bits())
            .await
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.get(instance, func, |_, value: f64| value.to_bits())
            .await
    }
}
