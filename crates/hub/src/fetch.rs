//! Fetches one file: in parts, over several connections, from whichever place still answers.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_RANGE, HeaderMap},
};
use tokio::sync::Semaphore;

use crate::{
    client::{Client, Endpoint, Failure, TRIES, Tries, causes, shown},
    error::HubError,
    listing::Entry,
    part::{PART, Part},
    pull::Progress,
};

/// Times that a file is fetched whole which is not what the hub lists.
const WHOLE_TRIES: usize = 3;
/// Bytes that are written at once.
const WRITTEN: usize = 1 << 20;
/// A connection that brings fewer bytes than this in [`SLOW_TIME`] is given up.
const SLOW_BYTES: u64 = 60 << 10;
const SLOW_TIME: Duration = Duration::from_secs(60);

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
    pub(crate) entry: &'a Entry,
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

/// The outcome of a request for a part.
enum Came {
    /// The part.
    Part,
    /// The whole file, since the server knows no ranges.
    Whole,
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
            let mut tries = Tries::new(TRIES, self.client.settings.first_pause);
            loop {
                let before = done;
                self.client.wait_for(&origin.endpoint).await;
                // Held while the connection is: pauses are nobody's.
                let came = match self.permits.acquire().await {
                    Ok(_permit) => self.stream(job, origin, part, number, &mut done).await,
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

    /// One request for what is missing of a part; `done` is how much of it is there.
    async fn stream(
        &self,
        job: &Job<'_>,
        origin: &Origin,
        part: &Part,
        number: usize,
        done: &mut u64,
    ) -> Result<Came, Failure> {
        let size = job.entry.size;
        let (start, end) = part.bounds(number);
        if start + *done == end {
            // The request of its last bytes failed behind them.
            part.note(number).map_err(HubError::file(self.parts))?;
            return Ok(Came::Part);
        }
        let is_all = (start + *done, end) == (0, size);
        let range = (!is_all).then_some((start + *done, end));
        let response = self
            .client
            .open(&origin.endpoint, &origin.url, range)
            .await?;
        let broken = |problem: String| HubError::Network {
            what: format!("{} from {}", job.entry.path, shown(response.url())),
            problem,
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let expected = format!("bytes {}-{}/{size}", start + *done, end - 1);
            let got = text(response.headers(), CONTENT_RANGE.as_str());
            if range.is_none() || got.as_deref() != Some(&*expected) {
                let got = got.unwrap_or_default();
                let problem = format!("{expected} was asked for, {got:?} is given");
                return Err(broken(problem).into());
            }
            self.body(job, response, part, start, end, done).await?;
            part.note(number).map_err(HubError::file(self.parts))?;
            return Ok(Came::Part);
        }
        if let Some(length) = response.content_length().filter(|length| *length != size) {
            let problem = format!("{length} bytes are given, {size} are listed");
            return Err(broken(problem).into());
        }
        if start != 0 {
            return Err(broken("the range that was asked for is ignored".into()).into());
        }
        let is_sized = response.content_length() == Some(size);
        // All of it, whatever was asked for: what is there of this part comes again.
        self.progress.lost(job.number, *done);
        *done = 0;
        let mut all = 0;
        let came = self.body(job, response, part, 0, size, &mut all).await;
        // Parts that came whole are noted, even where the rest did not.
        let n_whole = if is_sized { all / PART } else { 0 };
        for number in 0..usize::try_from(n_whole).unwrap_or(0) {
            part.note(number).map_err(HubError::file(self.parts))?;
        }
        match came {
            Ok(()) => {
                for number in part.missing() {
                    part.note(number).map_err(HubError::file(self.parts))?;
                }
                Ok(Came::Whole)
            }
            Err(failure) => {
                // The next try goes on from there, unless it may have been a page of words.
                *done = if is_sized { all.min(end) } else { 0 };
                self.progress.lost(job.number, all - *done);
                Err(failure)
            }
        }
    }

    /// Writes a body to its place in the file, which it must fill.
    async fn body(
        &self,
        job: &Job<'_>,
        response: Response,
        part: &Part,
        start: u64,
        end: u64,
        done: &mut u64,
    ) -> Result<(), Failure> {
        let what = format!("{} from {}", job.entry.path, shown(response.url()));
        let broken = |problem: String| HubError::Network {
            what: what.clone(),
            problem,
        };
        let mut body = response.bytes_stream();
        let mut buffer: Vec<u8> = Vec::with_capacity(WRITTEN);
        let (mut window, mut in_window) = (Instant::now(), 0);
        let wanted = end - start;
        let write = |buffer: &mut Vec<u8>, done: &mut u64| -> Result<(), HubError> {
            part.write(buffer, start + *done)
                .map_err(HubError::file(self.parts))?;
            *done += buffer.len() as u64;
            self.progress.came(job.number, buffer.len() as u64);
            buffer.clear();
            Ok(())
        };
        let ended = loop {
            let Some(piece) = body.next().await else {
                break None;
            };
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => break Some(causes(&error)),
            };
            if *done + buffer.len() as u64 + piece.len() as u64 > wanted {
                break Some("more bytes come than were asked for".into());
            }
            buffer.extend_from_slice(&piece);
            in_window += piece.len() as u64;
            if buffer.len() >= WRITTEN {
                write(&mut buffer, done)?;
            }
            if window.elapsed() > SLOW_TIME {
                if in_window < SLOW_BYTES {
                    break Some(format!(
                        "{in_window} bytes came in {} s",
                        SLOW_TIME.as_secs()
                    ));
                }
                (window, in_window) = (Instant::now(), 0);
            }
        };
        write(&mut buffer, done)?;
        match ended {
            Some(problem) => Err(broken(problem).into()),
            None if *done < wanted => {
                let problem = format!("the body ends after {} of {wanted} bytes", *done);
                Err(broken(problem).into())
            }
            None => Ok(()),
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}
