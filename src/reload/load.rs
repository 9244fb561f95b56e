//! Loads what a new configuration names, in a task: plugins, then models.

use std::sync::Arc;

use embedgate_config::Config;
use embedgate_metrics::Metrics;
use embedgate_plugin_host::{Plugins, stamps};
use tokio::task::JoinHandle;

use super::{Reloader, report::PluginReport};
use crate::model_host::{Applied, ModelHost};

/// The parts that have to be loaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Due {
    pub(super) plugins: bool,
    pub(super) models: bool,
    /// The keys that have changed and are not loaded.
    pub(super) needs_restart: Vec<String>,
}

/// The result of a load.
pub(super) struct Loaded {
    pub(super) models: Option<Applied>,
    pub(super) plugins: PluginReport,
    pub(super) needs_restart: Vec<String>,
}

impl Reloader {
    /// Starts to load what is due.
    pub(super) fn start_loading(&mut self, due: Due) -> JoinHandle<Loaded> {
        let (plugins, models) = (Arc::clone(&self.plugins), Arc::clone(&self.models));
        let (config, metrics) = (self.config.clone(), self.metrics.clone());
        if due.plugins {
            // Before they are read: a file that changes from now on is seen.
            self.seen = Some(stamps(&config.plugins));
        }
        tokio::spawn(async move {
            let of_plugins = match due.plugins {
                true => load_plugins(plugins, &config).await,
                false => PluginReport::default(),
            };
            let of_models = match due.models {
                true => load_models(&models, &config, &metrics).await,
                false => None,
            };
            Loaded {
                models: of_models,
                plugins: of_plugins,
                needs_restart: due.needs_restart,
            }
        })
    }
}

async fn load_plugins(plugins: Arc<Plugins>, config: &Config) -> PluginReport {
    let configs = config.plugins.clone();
    match tokio::task::spawn_blocking(move || plugins.load(&configs)).await {
        Ok(reloaded) => PluginReport {
            loaded: reloaded.loaded,
            removed: reloaded.removed,
            failed: reloaded.failed,
        },
        Err(error) => PluginReport {
            failed: vec![format!("the plugins stay as they were: {error}")],
            ..PluginReport::default()
        },
    }
}

/// Waits for the first models first. None at the end of the process.
async fn load_models(
    models: &Arc<ModelHost>,
    config: &Config,
    metrics: &Metrics,
) -> Option<Applied> {
    models.started().await;
    let cache = models.embedder()?.cache().clone();
    let cache = match cache.has_sizes(&config.cache) {
        true => cache,
        false => cache.resized(&config.cache, metrics).await,
    };
    Some(models.apply(config, &cache).await)
}
