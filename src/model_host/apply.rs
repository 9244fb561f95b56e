//! From the models that are served to those that a configuration names.

mod exchange;
mod publish;
mod step;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use embedgate_config::Config;

use self::step::Step;
use super::{Applied, Change, ModelHost};
use crate::{
    cache::EmbeddingCache,
    model::{About, ModelState},
};

/// A model as the configuration has it.
struct Done {
    about: Arc<About>,
    /// None: the one that is published. So a change keeps no model in memory that left meanwhile.
    state: Option<ModelState>,
}

/// A change from one configuration to another, half done.
struct Changing<'a> {
    host: &'a Arc<ModelHost>,
    config: &'a Config,
    cache: &'a EmbeddingCache,
    /// The models that were there and still are.
    before: Vec<Arc<About>>,
    /// The default model before the change, for requests that named no model.
    default_before: Option<String>,
    /// The models as the configuration has them, as far as they are ready.
    done: BTreeMap<String, Done>,
    applied: Applied,
}

impl ModelHost {
    /// Makes the models what the configuration says. A model is loaded beside the one whose place it takes, which serves until
    /// then, and on where the new one cannot be loaded; what is the same is not touched. Nothing is served before the first
    /// call ends.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        config: &Config,
        cache: &EmbeddingCache,
    ) -> Applied {
        let _alone = self.applying.lock().await;
        let limit = config.server.max_model_memory;
        *self
            .max_memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = limit;
        self.forget_failures();
        let (before, default_before) = match self.embedder() {
            Some(embedder) => {
                let registry = embedder.registry();
                let entries = registry.entries().iter();
                (
                    entries.map(|entry| Arc::clone(&entry.about)).collect(),
                    registry.default_name().map(str::to_owned),
                )
            }
            None => (Vec::new(), None),
        };
        let changing = Changing {
            host: self,
            config,
            cache,
            before,
            default_before,
            done: BTreeMap::new(),
            applied: Applied::default(),
        };
        changing.run().await
    }
}

impl Changing<'_> {
    async fn run(mut self) -> Applied {
        let mut to_load = Vec::new();
        for (name, written) in &self.config.models {
            let (step, about) = self.look(name, written).await;
            match step {
                Step::Done(state, change) => self.finish(about, state, change),
                Step::Load => to_load.push(about),
            }
        }
        let is_removed = |about: &&Arc<About>| !self.config.models.contains_key(&about.name);
        let removed: Vec<Arc<About>> = self.before.iter().filter(is_removed).cloned().collect();
        let mut of_removed = removed
            .iter()
            .map(|about| self.memory_of(&about.name))
            .sum();
        for about in &removed {
            self.applied.0.insert(about.name.clone(), Change::Removed);
        }
        if to_load.iter().any(|about| about.config.stop_first) {
            of_removed = 0;
            self.remove(&removed, &to_load).await;
        }
        {
            let _turn = self.host.turn.lock().await;
            self.publish_meanwhile();
        }
        for about in to_load {
            // Between two loads others may load what a request asks for.
            let _turn = self.host.turn.lock().await;
            self.load(&about, of_removed).await;
            self.publish_meanwhile();
        }
        let _turn = self.host.turn.lock().await;
        self.before.clear();
        self.publish();
        self.host.started.send_replace(true);
        self.host.fetch_all();
        self.applied
    }

    fn finish(&mut self, about: Arc<About>, state: Option<ModelState>, change: Change) {
        self.applied.0.insert(about.name.clone(), change);
        self.done.insert(about.name.clone(), Done { about, state });
    }

    /// Bytes that a model takes which is served now.
    fn memory_of(&self, name: &str) -> u64 {
        let entry = self.host.entry(name);
        entry
            .and_then(|entry| Some(entry.loaded()?.memory))
            .unwrap_or(0)
    }

    /// Lets go of the models that are not named any more, before others are loaded. Names that are to come are there already.
    async fn remove(&mut self, removed: &[Arc<About>], to_load: &[Arc<About>]) {
        let _turn = self.host.turn.lock().await;
        let is_kept = |about: &Arc<About>| removed.iter().all(|removed| removed.name != about.name);
        self.before.retain(is_kept);
        for about in to_load {
            if self.host.entry(&about.name).is_none() {
                let state = Some(ModelState::Loading);
                let about = Arc::clone(about);
                self.done.insert(about.name.clone(), Done { about, state });
            }
        }
        self.publish_meanwhile();
        self.host.wait_for_leaving().await;
    }
}
