//! Loads the models of the configuration, and says so.

use std::{net::SocketAddr, sync::Arc};

use anyhow::bail;
use tokio::sync::watch;

use super::{
    App,
    announce::{example, say_ready},
};
use crate::{
    cache::{EmbeddingCache, file::WarmFile},
    http::Gateway,
    model::ModelState,
    model_host::ModelHost,
};

impl App {
    /// Loads the models, says so, and lets go of those that nobody uses. Ends only where that cannot be.
    pub(super) async fn begin(
        &self,
        gateway: &Gateway,
        address: Option<SocketAddr>,
        loaded: watch::Sender<bool>,
    ) -> anyhow::Result<()> {
        let models = &gateway.models;
        self.load(models).await?;
        loaded.send_replace(true);
        let embedder = models.embedder();
        let example = embedder
            .zip(address)
            .and_then(|(embedder, address)| example(&embedder, address, gateway));
        say_ready(models, self.config.models.len());
        if let Some(example) = example {
            tracing::info!("try it: {example}");
        }
        self.advise().await;
        models.keep().await;
        Ok(())
    }

    /// Loads every model, one after another: two at once would peak in memory.
    async fn load(&self, models: &Arc<ModelHost>) -> anyhow::Result<()> {
        let file = WarmFile::open(&self.config.cache, &self.metrics);
        let cache = EmbeddingCache::new(&self.config.cache, file, &self.metrics);
        let applied = models.apply(&self.config, &cache).await;
        for failed in applied.failed() {
            tracing::error!("{failed}");
        }
        if self.config.server.require_all_models
            && let Some(failed) = applied.failed().next()
        {
            bail!(failed);
        }
        let embedder = models.embedder();
        let can_serve = embedder.is_some_and(|embedder| {
            let mut entries = embedder.registry().entries().iter();
            entries.any(|entry| !matches!(entry.state, ModelState::Failed(_)))
        });
        if !can_serve {
            bail!("no model could be loaded: see the errors above");
        }
        Ok(())
    }
}
