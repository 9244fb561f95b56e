//! Loads a model, apart from the threads that serve.

use std::sync::Arc;

use embedgate_config::LoadTime;

use super::{ModelHost, room::Beside};
use crate::model::{
    About, Model, ModelState,
    load::{self, LoadError, Loading},
};

impl ModelHost {
    /// The state in which a model begins: loaded, or on its way.
    pub(super) async fn first_state(
        self: &Arc<Self>,
        about: &Arc<About>,
        beside: Beside,
    ) -> Result<ModelState, String> {
        if let (Some(problem), Some(source)) = (load::to_fetch(&about.config), &about.config.source)
        {
            return match self.fetcher {
                Some(_) => Ok(ModelState::Fetching(
                    self.fetched(&about.config.path, source),
                )),
                None => Err(problem),
            };
        }
        if about.config.load == LoadTime::OnDemand {
            let planned = Arc::clone(about);
            let plan = blocking(move || load::plan(&planned.config)).await?;
            plan.map_err(|error| error.to_string())?;
            return Ok(ModelState::OnDemand);
        }
        self.load(about, beside).await.map(ModelState::Loaded)
    }

    /// Loads a model, apart from the threads that serve.
    pub(super) async fn load(
        self: &Arc<Self>,
        about: &Arc<About>,
        beside: Beside,
    ) -> Result<Arc<Model>, String> {
        // At most two models under a name are in memory.
        self.wait_for_leaving().await;
        let (host, about) = (Arc::clone(self), Arc::clone(about));
        let loading = tokio::task::spawn_blocking(move || {
            let name = &about.name;
            let room = |bytes| host.make_room(name, bytes, beside);
            let loading = Loading {
                context: &host.load_context,
                metrics: &host.metrics,
                room: &room,
            };
            let model = load::load(name, &about.config, loading)?;
            host.count(&model);
            host.served.note(name, model.files().space);
            Ok::<_, LoadError>(model)
        });
        match loading.await {
            Ok(Ok(model)) => Ok(Arc::new(model)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("loading ended with a fault of embedgate: {error}")),
        }
    }
}

/// Runs what reads files apart from the threads that serve.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let work = tokio::task::spawn_blocking(work).await;
    work.map_err(|error| format!("a fault of embedgate: {error}"))
}
