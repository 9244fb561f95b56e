//! The step that each model needs: which can stay, which takes other settings, which has to be loaded.

use std::sync::Arc;

use embedgate_config::{LoadTime, ModelConfig};

use super::Changing;
use crate::{
    model::{
        About, ModelState, RegistryEntry,
        load::{self, Plan},
    },
    model_host::{Change, load::blocking},
};

/// The step that a model needs.
pub(super) enum Step {
    /// It has this state, or the one that it has; nothing more.
    Done(Option<ModelState>, Change),
    /// It has to be loaded, or fetched.
    Load,
}

impl Changing<'_> {
    /// Looks at a model as it is written, and at its folder: the step that it needs, and what is known of it.
    pub(super) async fn look(&self, name: &str, written: &ModelConfig) -> (Step, Arc<About>) {
        let old = self.host.entry(name);
        let config = Arc::new(written.clone());
        let (owned, settled) = (name.to_owned(), Arc::clone(&config));
        let host = Arc::clone(self.host);
        let looking = blocking(move || {
            let plan = load::plan(&settled).ok();
            let about = About {
                outline: plan.as_ref().map(Plan::outline),
                ..About::new(&owned, &settled)
            };
            let step = step(old.as_ref(), &settled, plan.as_ref());
            if let Step::Done(Some(ModelState::Loaded(model)), _) = &step {
                // Another prompt in front of every text makes other vectors.
                host.served.note(&owned, model.files().space);
            }
            (step, Arc::new(about))
        });
        match looking.await {
            Ok(found) => found,
            Err(_) => (Step::Load, Arc::new(About::new(name, &config))),
        }
    }
}

/// Chooses the step that a model needs. Reads small files.
fn step(old: Option<&RegistryEntry>, new: &ModelConfig, plan: Option<&Plan>) -> Step {
    let Some(old) = old else {
        return Step::Load;
    };
    if old.config.with_settings_of_requests(new) != *new {
        return Step::Load;
    }
    let change = match *old.config == *new {
        true => Change::Kept,
        false => Change::Adjusted,
    };
    match &old.state {
        // Under way, from the same place: nothing has to be begun.
        ModelState::Fetching(_) if old.config.source == new.source => Step::Done(None, change),
        ModelState::OnDemand if new.load == LoadTime::OnDemand && plan.is_some() => {
            Step::Done(None, change)
        }
        ModelState::Loaded(model) if model.files().are_as_loaded() => match change {
            Change::Kept => Step::Done(None, change),
            _ => match plan.map(|plan| model.with_settings(new, plan)) {
                Some(Ok(model)) => Step::Done(Some(ModelState::Loaded(Arc::new(model))), change),
                _ => Step::Load,
            },
        },
        _ => Step::Load,
    }
}
