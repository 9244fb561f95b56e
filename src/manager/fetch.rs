//! Models that are fetched while others serve.

use std::{path::PathBuf, sync::Arc};

use embedgate_config::{ModelConfig, Source};
use futures_util::future::BoxFuture;

use super::{ModelManager, room::Beside};
use crate::model::{Entry, Fetched, State};

/// Brings a model of a hub into a folder, and notes how far it is.
pub(crate) type Fetcher = Arc<
    dyn Fn(Source, PathBuf, Arc<Fetched>) -> BoxFuture<'static, Result<(), String>> + Send + Sync,
>;

impl ModelManager {
    /// Fetches a model that is registered as one that is being fetched, and loads it, unless the configuration has changed
    /// meanwhile.
    pub(super) fn fetch(self: &Arc<Self>, name: &str, config: &Arc<ModelConfig>) {
        let (Some(fetcher), Some(source)) = (&self.fetcher, &config.source) else {
            return;
        };
        let Some(State::Fetching(fetched)) = self.entry(name).map(|entry| entry.state) else {
            return;
        };
        tracing::info!(
            model.name = name,
            "fetching model {name} from {source} into {}",
            config.path.display()
        );
        let fetching = fetcher(source.clone(), config.path.clone(), Arc::clone(&fetched));
        let (manager, name) = (Arc::clone(self), name.to_owned());
        tokio::spawn(async move {
            let ended = fetching.await;
            let _turn = manager.turn.lock().await;
            let entry = manager.entry(&name);
            // It may have other settings by now, or be gone.
            let is_this =
                |state: &State| matches!(state, State::Fetching(now) if Arc::ptr_eq(now, &fetched));
            let Some(Entry { config, .. }) = entry.filter(|entry| is_this(&entry.state)) else {
                return;
            };
            let loaded = match ended {
                Ok(()) => {
                    manager.publish_state(&name, State::Loading);
                    manager.first_state(&name, &config, Beside::Nothing).await
                }
                Err(reason) => Err(reason),
            };
            let state = loaded.unwrap_or_else(|reason| {
                tracing::error!(model.name = name, "model {name} cannot be served: {reason}");
                State::Failed(reason.into())
            });
            manager.publish_state(&name, state);
        });
    }
}
