//! Loads a model in the place of another, which serves on where that fails.

use std::{collections::BTreeSet, sync::Arc};

use super::{Changing, Done};
use crate::{
    model::{About, ModelState, load},
    model_host::{Change, load::blocking, room::Beside},
};

impl Changing<'_> {
    /// Loads a model, beside the one whose place it takes or after that one is gone.
    pub(super) async fn load(&mut self, about: &Arc<About>, of_removed: u64) {
        let name = &about.name;
        let old = self.host.entry(name);
        let Some((old, bytes)) = old.and_then(|old| {
            let bytes = old.loaded()?.memory;
            Some((old, bytes))
        }) else {
            let beside = Beside::Predecessor(of_removed);
            return match self.host.first_state(about, beside).await {
                Ok(state) => {
                    let change = change_to(&state, Change::Added);
                    self.finish(Arc::clone(about), Some(state), change);
                }
                Err(reason) => self.fail(about, reason),
            };
        };
        if load::to_fetch(&about.config).is_some() {
            // It would not serve for minutes.
            let path = about.config.path.display();
            let reason = format!(
                "{path} is not there, and is not fetched while the one before serves: `embedgate pull {} --to {path}`, and reload then",
                about
                    .config
                    .source
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            );
            return self.keep(&old.about, reason);
        }
        let before = Arc::clone(&old.about);
        // From here on nothing holds the model but those who serve it.
        drop(old);
        if about.config.stop_first {
            return self.load_after(about, &before).await;
        }
        // One that is in memory is not given up for one that was never loaded, wherever it is loaded on demand.
        let beside = Beside::Predecessor(bytes.saturating_add(of_removed));
        match self.host.load(about, beside).await {
            Ok(model) => {
                let state = Some(ModelState::Loaded(model));
                self.finish(Arc::clone(about), state, Change::Exchanged);
            }
            Err(reason) => self.keep(&before, reason),
        }
    }

    /// Loads a model after the one before was stopped for it; that one again, where it cannot be. What can be known beforehand is
    /// looked at beforehand.
    async fn load_after(&mut self, about: &Arc<About>, before: &Arc<About>) {
        let (host, looked_at) = (Arc::clone(self.host), Arc::clone(about));
        let looking =
            blocking(move || load::inspect(&looked_at.name, &looked_at.config, &host.load_context));
        let problem = match looking.await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error),
        };
        if let Some(reason) = problem {
            return self.keep(before, reason);
        }
        let state = Some(ModelState::Loading);
        let loading = Done {
            about: Arc::clone(about),
            state,
        };
        self.done.insert(about.name.clone(), loading);
        self.publish_meanwhile();
        self.host.wait_for_leaving().await;
        let reason = match self.host.load(about, Beside::Nothing).await {
            Ok(model) => {
                let state = Some(ModelState::Loaded(model));
                return self.finish(Arc::clone(about), state, Change::Exchanged);
            }
            Err(reason) => reason,
        };
        match self.host.load(before, Beside::Nothing).await {
            Ok(model) => {
                self.keep(before, reason);
                if let Some(done) = self.done.get_mut(&before.name) {
                    done.state = Some(ModelState::Loaded(model));
                }
            }
            Err(again) => {
                let reason = format!("{reason}; nor can the one before be loaded again: {again}");
                self.fail(about, reason);
            }
        }
    }

    fn fail(&mut self, about: &Arc<About>, reason: String) {
        let state = Some(ModelState::Failed(reason.as_str().into()));
        let serves_as_before = false;
        let change = Change::Failed {
            reason,
            serves_as_before,
        };
        self.finish(Arc::clone(about), state, change);
    }

    /// Keeps a model whose successor cannot be loaded, under those of its names that no other model has now.
    fn keep(&mut self, about: &Arc<About>, reason: String) {
        let models = self.config.models.iter();
        let others = models.filter(|(name, _)| **name != about.name);
        let taken: BTreeSet<&String> = others
            .flat_map(|(name, model)| model.aliases.iter().chain([name]))
            .collect();
        let aliases = about.aliases.iter().filter(|alias| !taken.contains(alias));
        let about = About {
            aliases: aliases.cloned().collect(),
            ..About::clone(about)
        };
        let serves_as_before = true;
        let change = Change::Failed {
            reason,
            serves_as_before,
        };
        self.finish(Arc::new(about), None, change);
    }
}

/// Returns the change that a state means for a caller who asked for a model.
fn change_to(state: &ModelState, loaded: Change) -> Change {
    match state {
        ModelState::OnDemand => Change::OnDemand,
        ModelState::Fetching(_) => Change::Fetching,
        ModelState::Loaded(_) | ModelState::Failed(_) | ModelState::Loading => loaded,
    }
}
