//! The fetch of a model while others serve.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use embedgate_config::{Environment, HubConfig};
use embedgate_hub::{ListedFile, Listing, Progress, Request, Selection};
use futures_util::FutureExt;

use super::{HubOptions, settings};
use crate::{model::Fetched, model_host::Fetcher};

/// Lines of the log about a fetch are at least so far apart.
const QUIET: Duration = Duration::from_secs(10);

/// Makes the fetcher that gets a model while others serve.
#[must_use]
pub(crate) fn fetcher(config: &HubConfig, environment: &Environment) -> Fetcher {
    let (config, environment) = (config.clone(), environment.clone());
    Arc::new(move |source, target, fetched| {
        // Where nothing may be fetched, that is said of the model that needs it.
        let settings = settings(&HubOptions::default(), &config, &environment);
        async move {
            let settings = settings.map_err(|error| format!("{error:#}"))?;
            let request = Request {
                source,
                target,
                selection: Selection::default(),
                is_dry_run: false,
            };
            let progress = FetchProgress {
                fetched,
                name: request.source.to_string(),
                state: Mutex::default(),
            };
            let pulled = embedgate_hub::pull(&request, settings, &progress).await;
            let pulled = pulled.map_err(|error| error.to_string())?;
            for file in pulled.out_of_date {
                tracing::warn!("{} was written from other weights", file.display());
            }
            Ok(())
        }
        .boxed()
    })
}

/// Tells the log and whoever asks how a fetch goes on.
struct FetchProgress {
    fetched: Arc<Fetched>,
    name: String,
    state: Mutex<ByteCount>,
}

/// Bytes that came, and are to come.
#[derive(Default)]
struct ByteCount {
    done: u64,
    total: u64,
    said: Option<Instant>,
}

impl FetchProgress {
    fn change(&self, change: impl FnOnce(&mut ByteCount)) {
        let mut count = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut count);
        self.fetched.set(count.done, count.total);
        if count.said.is_some_and(|said| said.elapsed() < QUIET) {
            return;
        }
        count.said = Some(Instant::now());
        let mb = |bytes: u64| bytes / 1_000_000;
        let (done, total) = (mb(count.done), mb(count.total));
        tracing::info!("fetching {}: {done} of {total} MB", self.name);
    }
}

impl Progress for FetchProgress {
    fn begin(&self, _: &Listing, files: &[&ListedFile]) {
        let total = files.iter().map(|file| file.size).sum();
        self.change(|count| count.total = total);
    }

    fn came(&self, _: usize, bytes: u64) {
        self.change(|count| count.done += bytes);
    }

    fn lost(&self, _: usize, bytes: u64) {
        self.change(|count| count.done = count.done.saturating_sub(bytes));
    }

    fn whole(&self, _: usize) {}
}
