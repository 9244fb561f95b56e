//! Fetches one file: in parts, over several connections, from whichever place still answers.

mod stream;

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::Url;
use tokio::sync::Semaphore;

use self::stream::{Came, PartRequest};
use crate::{
    client::Client,
    endpoint::Endpoint,
    error::HubError,
    listing::ListedFile,
    part::Part,
    progress::Progress,
    tries::{TRIES, Tries},
};

/// Times that a file is fetched whole which is not what the hub lists.
const WHOLE_TRIES: usize = 3;

/// A place that has the file's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) endpoint: Endpoint,
    pub(crate) url: Url,
}

/// A file to fetch.
pub(crate) struct Job<'a> {
    /// Its number among the files, for the progress.
    pub(crate) number: usize,
    pub(crate) entry: &'a ListedFile,
    /// At least one; the next is taken where one fails.
    pub(crate) origins: Vec<Origin>,
    /// The one that worked last, for all parts.
    pub(crate) origin: AtomicUsize,
}

/// The means that all files share.
pub(crate) struct Fetching<'a> {
    pub(crate) client: &'a Client,
    /// The model, for messages.
    pub(crate) model: &'a str,
    /// One a connection.
    pub(crate) permits: &'a Semaphore,
    /// The folder of files in the making.
    pub(crate) parts: &'a Path,
    pub(crate) progress: &'a dyn Progress,
}

impl Fetching<'_> {
    /// Fetches a file to its place; returns its sha256.
    ///
    /// # Errors
    /// [`HubError`] names the file, the cause and the mend. What came stays, for the next run.
    pub(crate) async fn fetch(&self, job: &Job<'_>, target: &Path) -> Result<String, HubError> {
        let entry = job.entry;
        for _ in 0..WHOLE_TRIES {
            let part = Part::open(self.parts, entry).map_err(HubError::file(self.parts))?;
            self.progress.came(job.number, part.whole_bytes());
            self.fill(job, &part).await?;
            let check = entry.check.clone();
            let (part, hashed) = tokio::task::spawn_blocking(move || {
                let hashed = part.hash(&check);
                (part, hashed)
            })
            .await
            .map_err(|error| HubError::file(target)(io::Error::other(error)))?;
            let (sha256, holds) = hashed.map_err(HubError::file(target))?;
            if holds {
                let to = target.to_owned();
                // It waits for the disk.
                let published = tokio::task::spawn_blocking(move || part.publish(&to));
                let published = published
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                published.map_err(HubError::file(target))?;
                return Ok(sha256);
            }
            // Another place may have the right one.
            job.origin.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "{} is not what the hub lists: it is fetched again",
                entry.path
            );
            part.discard().map_err(HubError::file(target))?;
            self.progress.lost(job.number, entry.size);
        }
        Err(HubError::Wrong {
            path: entry.path.clone(),
            endpoint: job.origins[0].endpoint.to_string(),
            tries: WHOLE_TRIES,
            problem: format!("its hash is not {}", entry.check.hex()),
        })
    }

    /// Fetches all parts that are missing.
    async fn fill(&self, job: &Job<'_>, part: &Part) -> Result<(), HubError> {
        // Alone, to see whether the server knows ranges.
        let Some(first) = part.missing().first().copied() else {
            return Ok(());
        };
        if let Came::Whole = self.part(job, part, first).await? {
            return Ok(());
        }
        let missing = part.missing().into_iter();
        let mut others: FuturesUnordered<_> =
            missing.map(|number| self.part(job, part, number)).collect();
        while let Some(came) = others.next().await {
            came?;
        }
        Ok(())
    }

    /// Fetches a part, with as many tries as bring it on, from one place after the other.
    async fn part(&self, job: &Job<'_>, part: &Part, number: usize) -> Result<Came, HubError> {
        let mut done = 0;
        let n = job.origins.len();
        let mut last = None;
        for i in 0..n {
            let turn = job.origin.load(Ordering::Relaxed);
            let origin = &job.origins[turn % n];
            let request = PartRequest {
                fetching: self,
                job,
                origin,
                part,
                number,
            };
            let mut tries = Tries::new(TRIES, self.client.settings.first_pause);
            loop {
                let before = done;
                self.client.wait_for(&origin.endpoint).await;
                // Held while the connection is: pauses are nobody's.
                let came = match self.permits.acquire().await {
                    Ok(_permit) => request.send(&mut done).await,
                    Err(_) => return Ok(Came::Part),
                };
                let failure = match came {
                    Ok(came) => return Ok(came),
                    Err(failure) => failure,
                };
                if let HubError::File { .. } | HubError::Full { .. } = failure.error {
                    return Err(failure.error);
                }
                if let Some(wait) = failure.wait {
                    self.client.hold(&origin.endpoint, wait);
                }
                if done > before {
                    tries.progressed();
                }
                if let Err(error) = tries.failed(failure).await {
                    let error = error.of(self.model, &job.entry.path);
                    if i + 1 < n {
                        tracing::warn!("{}: {error}: going on elsewhere", job.entry.path);
                    }
                    // Unless another part has gone on already.
                    let next = turn + 1;
                    _ = job.origin.compare_exchange(
                        turn,
                        next,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    last = Some(error);
                    break;
                }
            }
        }
        Err(last.unwrap_or_else(|| HubError::Listing(format!("{} is nowhere", job.entry.path))))
    }
}
