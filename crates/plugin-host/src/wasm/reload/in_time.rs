//! Loads a plugin within a bounded time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use embedgate_config::PluginConfig;

use crate::wasm::load::{Loaded, Loader, PluginResources};

/// A plugin must be compiled within so much time on processors: Python's, the largest known, takes 6 s. How long that is by the clock
/// depends on what else the machine does, since requests go first.
const MOST_CPU_TIME: Duration = Duration::from_secs(120);
/// Within this time by the clock in any case.
const MOST_TIME: Duration = Duration::from_secs(1800);
/// The time between two looks at it.
const LOOK: Duration = Duration::from_secs(1);
/// The time between two lines of the log that say that it goes on.
const SAY: Duration = Duration::from_secs(15);

/// Loads a plugin on a thread of its own, which is left to itself where it takes too long: wasmtime cannot be stopped
/// while it compiles.
pub(super) fn load_in_time(
    loader: Arc<Loader>,
    name: &str,
    config: &PluginConfig,
    resources: &PluginResources,
) -> anyhow::Result<Loaded> {
    let done = Arc::new((Mutex::new(None), Condvar::new()));
    let to_here = Arc::clone(&done);
    let engine = Arc::clone(&loader.engine);
    let (shown, config, resources) = (name, config.clone(), resources.clone());
    let name = name.to_owned();
    let runtime = tokio::runtime::Handle::try_current();
    let (begun, before) = (Instant::now(), engine.loading_time().unwrap_or_default());
    std::thread::Builder::new()
        .name("plugin-loader".into())
        .spawn(move || {
            let _in_runtime = runtime.as_ref().map(tokio::runtime::Handle::enter);
            let thread = loader.engine.register_thread();
            let load = AssertUnwindSafe(|| loader.load(&name, &config, &resources));
            let loaded = catch_unwind(load)
                .unwrap_or_else(|_| Err(anyhow!("loading panicked: see the log")));
            drop(thread);
            *to_here.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
            to_here.1.notify_one();
        })?;
    let mut say = begun + SAY;
    // Not by a timer of the runtime, which may end while this waits.
    let mut slot = done.0.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let waited = done
            .1
            .wait_timeout_while(slot, LOOK, |loaded| loaded.is_none());
        slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(loaded) = slot.take() {
            return loaded;
        }
        let elapsed = begun.elapsed();
        let spent = engine.loading_time();
        let spent = spent.map_or(elapsed, |now| now.saturating_sub(before));
        if spent >= MOST_CPU_TIME || elapsed >= MOST_TIME {
            bail!(
                "compiling took {spent:.0?} on processors, and {elapsed:.0?} by the clock: is it a plugin?"
            );
        }
        if Instant::now() >= say {
            say += SAY;
            tracing::info!(
                plugin = shown,
                "plugin {shown} is being compiled: {spent:.0?} on processors in {elapsed:.0?}; `embedgate plugin compile` does it beforehand"
            );
        }
    }
}
