//! Models that are fetched while others serve: one fetch a folder, however many models are in it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Duration,
};

use embedgate_config::Source;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::{ModelHost, room::Beside};
use crate::model::{About, Fetched, ModelState, load};

/// Brings a model of a hub into a folder, and notes how far it is.
pub(crate) type Fetcher = Arc<
    dyn Fn(Source, PathBuf, Arc<Fetched>) -> BoxFuture<'static, Result<(), String>> + Send + Sync,
>;

/// After a failure it is tried again; each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// A fetch into a folder.
pub(super) struct Fetch {
    path: PathBuf,
    source: Source,
    fetched: Arc<Fetched>,
    /// None before it has begun.
    task: Option<JoinHandle<()>>,
}

impl ModelHost {
    /// The progress of the fetch into a folder; a new one where none from there is under way.
    pub(super) fn fetched(&self, path: &Path, source: &Source) -> Arc<Fetched> {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = fetches.iter();
        let same = known.find(|fetch| fetch.path == path && fetch.source == *source);
        if let Some(fetch) = same {
            return Arc::clone(&fetch.fetched);
        }
        let fetched = Arc::new(Fetched::default());
        fetches.push(Fetch {
            path: path.to_owned(),
            source: source.clone(),
            fetched: Arc::clone(&fetched),
            task: None,
        });
        fetched
    }

    /// Begins the fetches that models wait for, and ends those that none waits for any more.
    pub(super) fn fetch_all(self: &Arc<Self>) {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        let (wanted, given_up): (Vec<Fetch>, Vec<Fetch>) = std::mem::take(&mut *fetches)
            .into_iter()
            .partition(|fetch| !self.waiting(&fetch.fetched).is_empty());
        *fetches = wanted;
        let given_up: Vec<(PathBuf, JoinHandle<()>)> = given_up
            .into_iter()
            .filter_map(|fetch| Some((fetch.path, fetch.task?)))
            .collect();
        for (_, task) in &given_up {
            task.abort();
        }
        let mut ended = given_up;
        for fetch in fetches.iter_mut().filter(|fetch| fetch.task.is_none()) {
            // It holds the folder until it has ended.
            let before = ended.iter().position(|(path, _)| *path == fetch.path);
            let before = before.map(|at| ended.swap_remove(at).1);
            fetch.task = self.begin(fetch, before);
        }
    }

    fn begin(
        self: &Arc<Self>,
        fetch: &Fetch,
        before: Option<JoinHandle<()>>,
    ) -> Option<JoinHandle<()>> {
        let fetcher = Arc::clone(self.fetcher.as_ref()?);
        let (host, fetched) = (Arc::clone(self), Arc::clone(&fetch.fetched));
        let (source, path) = (fetch.source.clone(), fetch.path.clone());
        Some(tokio::spawn(async move {
            if let Some(before) = before {
                // It was told to end.
                drop(before.await);
            }
            let shown = path.display();
            tracing::info!("fetching {source} into {shown}");
            let mut pause = FIRST_PAUSE;
            while let Err(reason) =
                fetcher(source.clone(), path.clone(), Arc::clone(&fetched)).await
            {
                let seconds = pause.as_secs();
                // Before the log says so: who reads it may ask at once.
                fetched.fail(reason.clone());
                tracing::error!(
                    "{source} cannot be fetched, trying again in {seconds} s: {reason}"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // Apart: a reload that needs this fetch no more ends it, and must not end a load.
            tokio::spawn(async move { host.load_fetched(&fetched).await });
        }))
    }

    /// Loads the models that wait for a fetch that has ended.
    async fn load_fetched(self: &Arc<Self>, fetched: &Arc<Fetched>) {
        loop {
            let _turn = self.turn.lock().await;
            let Some(about) = self.waiting(fetched).into_iter().next() else {
                break;
            };
            self.publish_state(&about.name, ModelState::Loading);
            let state = match self.first_state(&about, Beside::Nothing).await {
                // Somebody took it away again.
                Ok(ModelState::Fetching(_)) => {
                    Err(load::to_fetch(&about.config).unwrap_or_default())
                }
                state => state,
            };
            let state = state.unwrap_or_else(|reason| {
                let name = &about.name;
                tracing::error!(model.name = name, "model {name} cannot be served: {reason}");
                ModelState::Failed(reason.into())
            });
            self.publish_state(&about.name, state);
        }
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        fetches.retain(|fetch| !Arc::ptr_eq(&fetch.fetched, fetched));
    }

    /// The models that wait for a fetch.
    fn waiting(&self, fetched: &Arc<Fetched>) -> Vec<Arc<About>> {
        let Some(embedder) = self.embedder() else {
            return Vec::new();
        };
        let waits = |state: &ModelState| matches!(state, ModelState::Fetching(own) if Arc::ptr_eq(own, fetched));
        let entries = embedder.registry().entries().iter();
        let waiting = entries.filter(|entry| waits(&entry.state));
        waiting.map(|entry| Arc::clone(&entry.about)).collect()
    }
}
