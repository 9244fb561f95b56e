//! Room in memory for a model: within what the configuration allows, and within what the machine has.

use std::sync::{Arc, PoisonError};

use embedgate_config::{ByteSize, LoadTime};
use embedgate_core::machine;

use super::{ModelHost, leaving::LEAVE_TIMEOUT};
use crate::model::{MemoryUse, Model, RegistryEntry, memory::mib};

/// The model that stays in memory while a new model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing that it replaces.
    Nothing,
    /// The model whose place it takes, and those that leave with it, of so many bytes.
    Predecessor(u64),
}

/// Too little memory.
struct NoRoom {
    /// Bytes that are missing.
    missing: u64,
    message: String,
}

impl ModelHost {
    /// Finds room for a model of so many bytes. Models that are loaded on demand go for it, those first that nobody has used
    /// for longest; none goes where all of them would not be enough. Blocks until they are gone.
    pub(super) fn make_room(&self, name: &str, bytes: u64, beside: Beside) -> Result<(), String> {
        loop {
            let Err(problem) = self.has_room(bytes, beside) else {
                return Ok(());
            };
            let mut victims = self.victims(name);
            let most: u64 = victims.iter().map(|(_, model)| model.memory).sum();
            if most < problem.missing {
                return Err(problem.message);
            }
            let Some((entry, model)) = victims.pop() else {
                return Err(problem.message);
            };
            drop(victims);
            tracing::info!(
                model.name = entry.name,
                "model {} leaves the memory to model {name}",
                entry.name
            );
            let ended = model.batcher().ended();
            drop(model);
            self.unload(&entry.name);
            drop(entry);
            // Called from a thread that may wait.
            let waiting = tokio::time::timeout(LEAVE_TIMEOUT, ended);
            if tokio::runtime::Handle::current().block_on(waiting).is_err() {
                return Err(format!(
                    "{}; one that was asked to leave still answers requests",
                    problem.message
                ));
            }
        }
    }

    fn has_room(&self, bytes: u64, beside: Beside) -> Result<(), NoRoom> {
        let limit = *self
            .max_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(ByteSize(limit)) = limit {
            let taken = self.taken();
            let needed = taken.saturating_add(bytes);
            if needed > limit {
                let what = format!("server.max_model_memory is {}", mib(limit));
                return Err(NoRoom {
                    missing: needed - limit,
                    message: no_room(bytes, &what, taken, beside),
                });
            }
        }
        // At the start each model was compared with the whole machine.
        let is_serving = self.embedder().is_some();
        if let Some(free) = machine::memory::available().filter(|_| is_serving)
            && bytes > free
        {
            let what = format!("{} of memory are free", mib(free));
            return Err(NoRoom {
                missing: bytes - free,
                message: no_room(bytes, &what, 0, beside),
            });
        }
        Ok(())
    }

    /// Bytes of all models that are in memory, those included that only answer their last requests.
    fn taken(&self) -> u64 {
        let mut all = self
            .in_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.retain(MemoryUse::is_held);
        all.iter()
            .fold(0, |sum: u64, held| sum.saturating_add(held.bytes()))
    }

    /// Notes that a model is in memory.
    pub(super) fn count(&self, model: &Model) {
        let mut all = self
            .in_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(model.memory_use());
    }

    /// The models that can be loaded again on demand, the one last that nobody has used for longest.
    fn victims(&self, but: &str) -> Vec<(RegistryEntry, Arc<Model>)> {
        let Some(embedder) = self.embedder() else {
            return Vec::new();
        };
        let entries = embedder.registry().entries().iter();
        let mut victims: Vec<(RegistryEntry, Arc<Model>)> = entries
            .filter(|entry| entry.name != but && entry.config.load == LoadTime::OnDemand)
            .filter_map(|entry| Some((entry.without_model(), Arc::clone(entry.loaded()?))))
            .collect();
        victims.sort_by_key(|(_, model)| model.unused_for());
        victims
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
