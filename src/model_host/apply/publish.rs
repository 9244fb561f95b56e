//! Publishes the models of a change: those that are ready, and those of before whose turn has not come.

use std::{collections::BTreeSet, sync::Arc};

use super::Changing;
use crate::{
    embed::Embedder,
    model::{About, ModelRegistry, ModelState, RegistryEntry},
};

impl Changing<'_> {
    /// Publishes what is ready, beside what was there before. Nothing at the start, where all comes at once.
    pub(super) fn publish_meanwhile(&mut self) {
        if self.host.embedder().is_some() {
            self.publish();
        }
    }

    /// Publishes the models that are ready, in the order of the configuration before, then those that are new.
    pub(super) fn publish(&mut self) {
        let current = self.host.embedder();
        let published = |name: &str| {
            let entry = current.as_ref()?.registry().entry(name)?;
            Some(entry.state.clone())
        };
        let mut entries = Vec::new();
        let taken: BTreeSet<&str> = self
            .done
            .values()
            .flat_map(|done| done.about.names())
            .collect();
        for before in &self.before {
            // Until the change is whole a name goes on meaning something.
            let own = before.aliases.iter();
            let own = own.filter(|alias| !taken.contains(alias.as_str())).cloned();
            let about = match self.done.get(&before.name) {
                Some(done) => done.about.with_more_aliases(own),
                None => About {
                    aliases: own.collect(),
                    ..About::clone(before)
                },
            };
            entries.push(about);
        }
        let names: BTreeSet<&str> = self.before.iter().map(|about| &*about.name).collect();
        let new = self.config.models.keys();
        let new = new.filter(|name| !names.contains(name.as_str()));
        let new = new.filter_map(|name| self.done.get(name));
        entries.extend(new.map(|done| About::clone(&done.about)));
        let entries: Vec<RegistryEntry> = entries
            .into_iter()
            .map(|about| {
                let done = self.done.get(&about.name);
                let own = done.and_then(|done| done.state.clone());
                let state = own.or_else(|| published(&about.name));
                RegistryEntry {
                    state: state.unwrap_or(ModelState::Loading),
                    about: Arc::new(about),
                }
            })
            .collect();
        let default = self.config.default_model();
        let is_there = |name: &&str| {
            entries
                .iter()
                .any(|entry| entry.names().any(|n| n == *name))
        };
        let before = self.default_before.as_deref();
        let default = default
            .filter(is_there)
            .or(before.filter(|_| !self.before.is_empty()))
            .map(str::to_owned);
        drop(current);
        let unknown = self.config.unknown_model;
        let registry = ModelRegistry::new(entries, default.as_deref(), unknown);
        let max_inputs = self.config.server.max_inputs;
        self.host
            .replace(Embedder::new(registry, self.cache.clone(), max_inputs));
        // What is published holds them now.
        for done in self.done.values_mut() {
            done.state = None;
        }
    }
}
