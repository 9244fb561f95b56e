//! The state of a plugin after `lifecycle.init` and a first call, put into the component itself.
//!
//! Instances of that component begin where the first call ended: the settings are read, the heap has its size. Then a fresh
//! instance for each call costs microseconds, and takes no lock of the kernel.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use wasmtime::component::{Component, ComponentNamedList, Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use super::{
    bindings::{
        embedgate::plugin::types,
        exports::embedgate::plugin::{authenticator, lifecycle, preprocessor},
    },
    engine::GuestEngine,
    guest::{self, BadSettings},
    inspect::Inspection,
    load::Loader,
    state::{Phase, Shared, State},
};

/// A guest that computes ends at its deadline; one that waits for its host ends so long after it.
const AFTER_DEADLINE: Duration = Duration::from_secs(1);

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

/// Runs a future on this thread, which is none of the runtime's.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.block_on(future),
        Err(_) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime without threads needs nothing of the system but a poll")
            .block_on(future),
    }
}

/// A first call that fails by itself: without having asked for what another call may be told otherwise, and within the memory
/// that it may have. Then every call fails.
#[derive(Debug, thiserror::Error)]
#[error("its first call fails")]
struct FailedCall;

/// Calls each hook of a plugin once, and forgets what came of it.
///
/// # Errors
/// When the plugin has something against its settings, or every call of it would fail.
pub(super) fn try_calls(
    loader: &Loader,
    component: &Component,
    settings: &str,
    shared: &Arc<Shared>,
    headers: &[String],
    inspection: &Inspection,
) -> anyhow::Result<()> {
    let first = First {
        loader,
        component,
        inspection,
        settings,
        headers,
    };
    match block_on(first.run(shared, true)) {
        Err(error) if error.is::<BadSettings>() || error.is::<FailedCall>() => Err(error),
        _ => Ok(()),
    }
}

/// Takes the snapshot of a plugin.
pub(super) fn take(
    loader: &Loader,
    bytes: &[u8],
    settings: &str,
    shared: &Arc<Shared>,
    headers: &[String],
    inspection: &Inspection,
) -> anyhow::Result<Snapshot> {
    let wizer = Wizer::new();
    let (context, instrumented) = match wizer.instrument_component(bytes) {
        Ok(instrumented) => instrumented,
        Err(error) => {
            tracing::debug!("no snapshot of plugin {}: {error:#}", shared.name);
            return Ok(Snapshot::Impossible);
        }
    };
    // Where the instrumented code is wrong, the plugin's own may well be right.
    let Ok(component) = loader.compile(&instrumented) else {
        return Ok(Snapshot::Impossible);
    };
    let mut state = None;
    for warm_up in [true, false] {
        let first = First {
            loader,
            component: &component,
            inspection,
            settings,
            headers,
        };
        match block_on(first.run(shared, warm_up)) {
            Ok(found) => {
                state = Some(found);
                break;
            }
            // What the plugin has against its settings, it has again.
            Err(error) if warm_up && !error.is::<BadSettings>() && !error.is::<FailedCall>() => {
                tracing::debug!("plugin {} cannot be warmed up: {error:#}", shared.name);
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
    match std::panic::catch_unwind(read) {
        Ok(Ok(bytes)) => Ok(Snapshot::Taken { bytes, may_keep }),
        Ok(Err(_)) | Err(_) => Ok(Snapshot::Impossible),
    }
}

/// The first instance of a plugin, the one that the snapshot is taken of.
struct First<'a> {
    loader: &'a Loader,
    component: &'a Component,
    inspection: &'a Inspection,
    settings: &'a str,
    headers: &'a [String],
}

impl First<'_> {
    async fn run(&self, shared: &Arc<Shared>, warm_up: bool) -> anyhow::Result<Initialized> {
        let engine: &GuestEngine = &self.loader.engine;
        let init_timeout = self.loader.init_timeout;
        let deadline = Instant::now() + init_timeout;
        let running = async {
            let _ticking = engine.ticker.call();
            let pre = self.loader.link(self.inspection, self.component)?;
            let mut store = guest::store(engine, shared, Phase::Init, deadline);
            let instance = pre.instantiate_async(&mut store).await;
            let instance =
                instance.map_err(|error| guest::at_load(error, store.data(), init_timeout))?;
            let mut live = guest::Live::new(store, instance);
            if self.inspection.has_lifecycle {
                let lifecycle = lifecycle::GuestIndices::new(&pre)?;
                let done = live.init(&lifecycle, self.settings).await;
                let state = live.store.data();
                done.map_err(|error| guest::at_load(error, state, init_timeout))?;
            }
            if warm_up {
                live.store.data_mut().phase = Phase::WarmUp;
                let was_impure = std::mem::take(&mut live.store.data_mut().is_impure);
                let warmed = self.warm_up(&pre, &mut live).await;
                let state = live.store.data_mut();
                let is_impure = std::mem::replace(&mut state.is_impure, was_impure);
                match warmed {
                    Err(error) if !is_impure && !state.is_memory_denied => {
                        return Err(error.context(FailedCall));
                    }
                    Err(error) => return Err(error),
                    // What a call is told by the secrets, the clock and the like is not what the next one should know.
                    Ok(()) if is_impure => {
                        bail!("the first call asked for what is not the same in every call")
                    }
                    Ok(()) => {}
                }
            }
            let guest::Live {
                store, instance, ..
            } = live;
            Ok::<_, anyhow::Error>(Initialized { store, instance })
        };
        // The guest's own clock comes first, where it runs at all.
        tokio::time::timeout_at((deadline + AFTER_DEADLINE).into(), running)
            .await
            .with_context(|| format!("lifecycle.init takes longer than {init_timeout:?}"))?
    }

    /// Calls each hook once, with nothing in particular.
    async fn warm_up(
        &self,
        pre: &wasmtime::component::InstancePre<State>,
        live: &mut guest::Live,
    ) -> anyhow::Result<()> {
        use embedgate_request::Hook;
        let guest::Live {
            store, instance, ..
        } = live;
        let value = "x".repeat(64);
        if self.inspection.hooks.contains(&Hook::Authenticate) {
            let headers: Vec<_> = self
                .headers
                .iter()
                .map(|name| types::HeaderParam {
                    name,
                    value: &value,
                })
                .collect();
            let head = authenticator::RequestHead {
                id: "warm-up",
                method: "POST",
                path: "/v1/embeddings",
                query: &[],
                headers: &headers,
                client_ip: "127.0.0.1",
            };
            let hook = authenticator::GuestIndices::new(pre)?.load(&mut *store, instance)?;
            // Its verdict is about nobody.
            drop(hook.call_authenticate(&mut *store, head).await?);
        }
        if self.inspection.hooks.contains(&Hook::Preprocess) {
            // As large as requests usually are: the heap grows to what they need.
            let text = "x ".repeat(4000);
            let texts = [text.as_str(); 16];
            let request = preprocessor::EmbedRequest {
                id: "warm-up",
                model: "warm-up",
                inputs: types::Inputs::Texts(&texts),
                dimensions: None,
                kind: types::InputKind::Unspecified,
                user: None,
                extra: &[],
            };
            let hook = preprocessor::GuestIndices::new(pre)?.load(&mut *store, instance)?;
            drop(hook.call_preprocess(&mut *store, request, None).await?);
        }
        Ok(())
    }
}

/// An instance whose state is read.
struct Initialized {
    store: wasmtime::Store<State>,
    instance: Instance,
}

impl Initialized {
    /// Calls one of the functions that the instrumentation added.
    async fn get<R, U>(
        &mut self,
        instance: &str,
        func: &str,
        read: impl FnOnce(&wasmtime::Store<State>, R) -> U,
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
