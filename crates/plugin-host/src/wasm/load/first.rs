//! The first instance of a plugin, and its first calls: what fails there fails in each.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use embedgate_request::Hook;
use wasmtime::{
    Store,
    component::{Component, Instance, InstancePre},
};

use super::{Candidate, Loader};
use crate::wasm::{
    bindings::{
        embedgate::plugin::types,
        exports::embedgate::plugin::{authenticator, lifecycle, preprocessor},
    },
    engine::GuestEngine,
    failure::{BadSettings, at_load},
    instance::{Live, store},
    state::{GuestState, Phase},
};

/// A guest that computes ends at its deadline; one that waits for its host ends so long after it.
const AFTER_DEADLINE: Duration = Duration::from_secs(1);

/// Calls each hook of a plugin once, and forgets what came of it.
///
/// # Errors
/// When the plugin has something against its settings, or every call of it would fail.
pub(super) fn try_calls(
    loader: &Loader,
    candidate: &Candidate<'_>,
    component: &Component,
) -> anyhow::Result<()> {
    let first = First {
        loader,
        candidate,
        component,
    };
    match block_on(first.run(WarmUp::Yes)) {
        Err(error) if error.is::<BadSettings>() || error.is::<FailedCall>() => Err(error),
        _ => Ok(()),
    }
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
pub(super) struct FailedCall;

/// The first instance of a plugin, the one that the snapshot is taken of.
pub(super) struct First<'a> {
    pub(super) loader: &'a Loader,
    pub(super) candidate: &'a Candidate<'a>,
    pub(super) component: &'a Component,
}

/// The choice to warm an instance up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WarmUp {
    /// Each hook is called once.
    Yes,
    /// No hook is called.
    No,
}

impl First<'_> {
    /// Makes the instance, runs `lifecycle.init`, and warms it up.
    pub(super) async fn run(&self, warm_up: WarmUp) -> anyhow::Result<Initialized> {
        let Candidate {
            inspection,
            settings,
            shared,
            ..
        } = self.candidate;
        let engine: &GuestEngine = &self.loader.engine;
        let init_timeout = self.loader.init_timeout;
        let deadline = Instant::now() + init_timeout;
        let running = async {
            let _ticking = engine.ticker.call();
            let pre = self.loader.link(inspection, self.component)?;
            let mut store = store(engine, shared, Phase::Init, deadline);
            let instance = pre.instantiate_async(&mut store).await;
            let instance = instance.map_err(|error| at_load(error, store.data(), init_timeout))?;
            let mut live = Live::new(store, instance);
            if inspection.has_lifecycle {
                let lifecycle = lifecycle::GuestIndices::new(&pre)?;
                let done = live.init(&lifecycle, settings).await;
                let state = live.store.data();
                done.map_err(|error| at_load(error, state, init_timeout))?;
            }
            if warm_up == WarmUp::Yes {
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
            let Live {
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
    async fn warm_up(&self, pre: &InstancePre<GuestState>, live: &mut Live) -> anyhow::Result<()> {
        let Live {
            store, instance, ..
        } = live;
        let hooks = &self.candidate.inspection.hooks;
        let value = "x".repeat(64);
        if hooks.contains(&Hook::Authenticate) {
            let names = &self.candidate.config.headers;
            let headers: Vec<_> = names
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
        if hooks.contains(&Hook::Preprocess) {
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
pub(super) struct Initialized {
    pub(super) store: Store<GuestState>,
    pub(super) instance: Instance,
}
