//! Models that are loaded when a request asks for them, and leave when nobody uses them.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use embedgate_request::Error;
use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use tokio::task::JoinError;

use super::{ModelHost, room::Beside};
use crate::model::{ModelState, RegistryEntry};

/// Time between two searches for models that no request uses.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A model that could not be loaded on demand is not tried again within this time.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// A load that several requests wait for.
pub(super) type Waking = Shared<BoxFuture<'static, Result<(), Arc<str>>>>;

impl ModelHost {
    /// Puts a model that is loaded on demand into memory. Many may ask at once, and one load answers them all; who leaves
    /// does not end it. One that failed a moment ago is not tried again.
    ///
    /// # Errors
    /// `Unavailable` with the reason.
    pub(crate) async fn wake(self: &Arc<Self>, name: &str) -> Result<(), Error> {
        let failed = |reason: &str, after: Duration| {
            let message = format!("model \"{name}\" could not be loaded: {reason}");
            Error::unavailable(message, after).with_code("model_unavailable")
        };
        if let Some((at, reason)) = self.failures().get(name) {
            let left = AFTER_FAILURE.saturating_sub(at.elapsed());
            if !left.is_zero() {
                return Err(failed(reason, left));
            }
        }
        let waking = {
            let mut wakings = self.wakings.lock().unwrap_or_else(PoisonError::into_inner);
            let start = || {
                let (host, name) = (Arc::clone(self), name.to_owned());
                let task = tokio::spawn(async move { host.load_on_demand(&name).await });
                let ended = |end: Result<Result<(), Arc<str>>, JoinError>| {
                    end.unwrap_or_else(|error| Err(format!("a fault of embedgate: {error}").into()))
                };
                task.map(ended).boxed().shared()
            };
            wakings.entry(name.to_owned()).or_insert_with(start).clone()
        };
        let woken = waking.await;
        woken.map_err(|reason| failed(&reason, AFTER_FAILURE))
    }

    async fn load_on_demand(self: Arc<Self>, name: &str) -> Result<(), Arc<str>> {
        let _turn = self.turn.lock().await;
        let entry = self.entry(name);
        let is_asleep = |entry: &RegistryEntry| matches!(entry.state, ModelState::OnDemand);
        let loaded = match entry.filter(is_asleep) {
            Some(RegistryEntry { about, .. }) => self.load(&about, Beside::Nothing).await.map(Some),
            // Somebody else was first, or it is gone: who asked looks again.
            None => Ok(None),
        };
        // From here on whoever asks begins anew.
        self.wakings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        match loaded {
            Ok(Some(model)) => self.publish_state(name, ModelState::Loaded(model)),
            Ok(None) => {}
            Err(reason) => {
                let reason: Arc<str> = reason.into();
                tracing::error!(
                    model.name = name,
                    "model {name} cannot be loaded on demand: {reason}"
                );
                let failure = (Instant::now(), Arc::clone(&reason));
                self.failures().insert(name.to_owned(), failure);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Lets go of models that are loaded on demand and that nobody uses, for ever.
    pub(crate) async fn keep(&self) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            // A change under way is not waited for.
            let Ok(_turn) = self.turn.try_lock() else {
                continue;
            };
            let Some(embedder) = self.embedder() else {
                continue;
            };
            for entry in embedder.registry().entries() {
                let (Some(model), Some(idle)) = (entry.loaded(), entry.config.idle) else {
                    continue;
                };
                if model.unused_for() >= idle.0 {
                    self.unload(&entry.name);
                    tracing::info!(
                        model.name = entry.name,
                        "model {} leaves the memory: nobody used it for {idle}",
                        entry.name
                    );
                }
            }
        }
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, (Instant, Arc<str>)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets failed loads, so that they are tried again: the configuration is another.
    pub(super) fn forget_failures(&self) {
        self.failures().clear();
    }

    /// Lets go of a model that can be loaded again on demand.
    pub(super) fn unload(&self, name: &str) {
        self.publish_state(name, ModelState::OnDemand);
    }
}
