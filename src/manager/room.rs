//! Room in memory for a model: within what the configuration allows, and within what the machine has.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use embedgate_config::ByteSize;

use super::ModelManager;
use crate::model::{
    Model, State,
    memory::{self, mib},
};

/// A model that is asked to leave still answers the requests that it has: that long it is waited for.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a new model is loaded beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing that it replaces.
    Nothing,
    /// The model whose place it takes, of so many bytes.
    Predecessor(u64),
}

impl ModelManager {
    /// Finds room for a model of so many bytes. Models that are loaded on demand go for it, those first that nobody has used
    /// for longest. Blocks until they are gone.
    pub(super) fn make_room(&self, name: &str, bytes: u64, beside: Beside) -> Result<(), String> {
        loop {
            let Err(problem) = self.has_room(name, bytes, beside) else {
                return Ok(());
            };
            if !self.unload_one(name) {
                return Err(problem);
            }
        }
    }

    fn has_room(&self, name: &str, bytes: u64, beside: Beside) -> Result<(), String> {
        let limit = *self
            .max_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(ByteSize(limit)) = limit {
            let taken: u64 = self.loaded().iter().map(|model| model.memory).sum();
            if taken + bytes > limit {
                let what = format!("server.max_model_memory is {}", mib(limit));
                return Err(no_room(bytes, &what, taken, beside));
            }
        }
        // At the start each model was compared with the whole machine.
        let is_serving = self.embedder().is_some();
        if let Some(free) = memory::available().filter(|_| is_serving)
            && bytes > free
        {
            let what = format!("{} of memory are free", mib(free));
            tracing::debug!(model.name = name, "no room for model {name}: {what}");
            return Err(no_room(bytes, &what, 0, beside));
        }
        Ok(())
    }

    /// Gives the memory of a model back to the system, as soon as nobody uses it any more.
    pub(super) fn free_later(&self, name: &str, model: Arc<Model>) {
        let name = name.to_owned();
        let leaving = tokio::spawn(async move { gone(&name, model).await });
        let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|leaving| !leaving.is_finished());
        all.push(leaving);
    }

    /// Waits for the models that are not served any more.
    pub(super) async fn wait_for_leaving(&self) {
        let leaving = {
            let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all)
        };
        for leaving in leaving {
            // An error means that the process ends.
            drop(leaving.await);
        }
    }

    fn loaded(&self) -> Vec<Arc<Model>> {
        let embedder = self.embedder();
        embedder.map_or(Vec::new(), |embedder| {
            embedder.registry().loaded().cloned().collect()
        })
    }

    /// Unloads the model on demand that nobody has used for longest; false where there is none.
    fn unload_one(&self, but: &str) -> bool {
        let Some(embedder) = self.embedder() else {
            return false;
        };
        let on_demand = embedder.registry().entries().iter().filter_map(|entry| {
            let is_other = entry.name != but && entry.is_on_demand();
            let model = entry.loaded().filter(|_| is_other)?;
            Some((entry, Arc::clone(model)))
        });
        let Some((entry, model)) = on_demand.max_by_key(|(_, model)| model.unused_for()) else {
            return false;
        };
        tracing::info!(
            model.name = entry.name,
            "model {} leaves the memory to model {but}",
            entry.name
        );
        self.unload(entry, &model);
        let name = entry.name.clone();
        drop(embedder);
        wait_until_gone(&name, model);
        true
    }
}

fn no_room(bytes: u64, limit: &str, taken: u64, beside: Beside) -> String {
    let mut message = format!("the model takes about {}, and {limit}", mib(bytes));
    if taken > 0 {
        message += &format!(", of which {} are taken", mib(taken));
    }
    if let Beside::Predecessor(of_predecessor) = beside
        && of_predecessor > 0
    {
        message += &format!(
            ": the one that it replaces takes {} until then; stop_first = true in its table stops that one before",
            mib(of_predecessor)
        );
    }
    message
}

/// Waits until nobody uses a model any more. Blocks; must be called within a tokio runtime, not on one of its own threads.
fn wait_until_gone(name: &str, model: Arc<Model>) {
    tokio::runtime::Handle::current().block_on(gone(name, model));
}

/// Waits until nobody uses a model any more, or for as long as a request in flight may take.
pub(super) async fn gone(name: &str, model: Arc<Model>) {
    let ended = model.batcher().ended();
    drop(model);
    match tokio::time::timeout(LEAVE_TIMEOUT, ended).await {
        Ok(()) => trim().await,
        Err(_) => tracing::warn!(
            model.name = name,
            "model {name} still answers requests after {} s: its memory is not free yet",
            LEAVE_TIMEOUT.as_secs()
        ),
    }
}

async fn trim() {
    // It takes the allocator's locks for milliseconds. An error means that the process ends.
    drop(tokio::task::spawn_blocking(embedgate_core::allocator::trim).await);
}

impl crate::model::Entry {
    /// Whether it can be loaded again by a request.
    fn is_on_demand(&self) -> bool {
        self.config.load == embedgate_config::LoadTime::OnDemand
            && matches!(self.state, State::Loaded(_))
    }
}
