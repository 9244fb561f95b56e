//! Brings a model into a folder: whole, or not at all.

use std::{io, path::PathBuf, sync::atomic::AtomicUsize, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream, stream::FuturesUnordered};
use tokio::sync::Semaphore;

use crate::{
    Hub, Source,
    client::{Client, Endpoint, Settings, now},
    error::HubError,
    fetch::{Fetching, Job, Origin},
    huggingface,
    listing::{Check, Entry, Listing},
    lock::{Lock, Locked},
    modelscope,
    select::Selection,
    work::{Place, Work, folder},
};

/// Other hubs that have the model too are waited for so long, once one has it.
const GRACE: Duration = Duration::from_secs(2);
/// Hears how a pull goes on.
pub trait Progress: Sync {
    /// The hub that has the model, and the files that are needed, by path and bytes.
    fn begin(&self, listing: &Listing, files: &[&Entry]);
    /// Bytes of a file came, or were there.
    fn came(&self, file: usize, bytes: u64);
    /// Bytes that were counted have to come again.
    fn lost(&self, file: usize, bytes: u64);
    /// A file is whole and right.
    fn whole(&self, file: usize);
}

/// A model to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// The model.
    pub source: Source,
    /// The folder that is to hold it.
    pub target: PathBuf,
    /// The files that are wanted.
    pub selection: Selection,
    /// True to list alone.
    pub is_dry_run: bool,
}

/// A fetched model.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The record that was written; in a dry run the one that would be, without hashes that are not known.
    pub lock: Lock,
    /// Files that were there already.
    pub n_kept: usize,
    /// Files that were in caches of other programs.
    pub n_found: usize,
    /// ONNX models of the folder that were written from other weights than there are now.
    pub out_of_date: Vec<PathBuf>,
}

/// Fetches a model into its folder. What is there and right stays as it is; other files of the folder are kept.
///
/// # Errors
/// [`HubError`] names the model or the file, the cause and the mend. The folder is as it was then; what came stays beside it, and
/// the next pull goes on with it.
pub async fn pull(
    request: &Request,
    settings: Settings,
    progress: &dyn Progress,
) -> Result<Pulled, HubError> {
    let client = Client::new(settings)?;
    let listings = listings(&client, &request.source).await?;
    let listing = &listings[0];
    let files = request.selection.choose(&listing.entries);
    request
        .selection
        .check(&listing.entries, &files)
        .map_err(|problem| {
            HubError::Listing(format!(
                "{} at {} {problem}",
                listing.model, listing.endpoint
            ))
        })?;
    progress.begin(listing, &files);
    if request.is_dry_run {
        let known = |file: &&Entry| match &file.check {
            Check::Sha256(hex) => hex.clone(),
            Check::GitSha1(_) => String::new(),
        };
        let locked = files.iter().map(|file| locked(file, known(file))).collect();
        return Ok(Pulled {
            lock: record(request, listing, locked),
            n_kept: 0,
            n_found: 0,
            out_of_date: Vec::new(),
        });
    }
    let target = folder(&request.target)?;
    let work = Work::begin(target)?;
    work.prune(&files)?;
    // A record that somebody wrote of files of their own protects them as none does.
    let old = Lock::read(&work.target)?.filter(|lock| !lock.is_local());
    if let Some(other) = old.as_ref().filter(|old| !old.is_of(&listing.model)) {
        work.end_if_empty();
        return Err(HubError::Other {
            folder: work.target,
            model: other.source.clone(),
        });
    }
    let caches = &client.settings.caches;
    let kept = work.kept(&listing.model, &files, caches, progress).await?;
    if old.is_none() {
        work.refuse_theirs(&files, &kept)
            .inspect_err(|_| work.end_if_empty())?;
    }
    work.check_room(work.needs(&files, &kept))
        .inspect_err(|_| work.end_if_empty())?;
    let kept = work.bring(&files, kept).await;
    let permits = Semaphore::new(client.settings.connections.max(1));
    let fetching = Fetching {
        client: &client,
        model: &listing.model,
        permits: &permits,
        parts: &work.folder,
        progress,
    };
    let mut fetched = Vec::new();
    for (number, (file, kept)) in files.iter().zip(&kept).enumerate() {
        let sha256 = kept.as_ref().map(|(sha256, _)| sha256.clone());
        let target = work.tree.join(&file.path);
        fetched.push(one(&fetching, &listings, (number, file), sha256, target));
    }
    let at_once = client.settings.connections.max(1);
    let locked: Vec<Locked> = stream::iter(fetched)
        .buffered(at_once)
        .try_collect()
        .await?;
    let lock = record(request, listing, locked);
    let is_in_target = |kept: &Option<(String, Place)>| matches!(kept, Some((_, Place::Target)));
    let n_kept = kept.iter().filter(|kept| is_in_target(kept)).count();
    let of_cache = |kept: &&Option<(String, Place)>| matches!(kept, Some((_, Place::Cache(_))));
    let n_found = kept.iter().filter(of_cache).count();
    if n_kept == files.len() && old.as_ref().is_some_and(|old| old.is_same(&lock)) {
        work.end()?;
        return Ok(Pulled {
            lock,
            n_kept,
            n_found,
            out_of_date: Vec::new(),
        });
    }
    let in_target: Vec<PathBuf> = files
        .iter()
        .zip(&kept)
        .filter(|(_, kept)| is_in_target(kept))
        .map(|(file, _)| file.path.clone().into())
        .collect();
    let out_of_date = lock.out_of_date(old.as_ref(), &work.target);
    let published = lock.clone();
    // It waits for the disk.
    let publishing =
        tokio::task::spawn_blocking(move || work.publish(&published, old.as_ref(), &in_target));
    publishing
        .await
        .map_err(|error| HubError::file(&request.target)(io::Error::other(error)))??;
    Ok(Pulled {
        lock,
        n_kept,
        n_found,
        out_of_date,
    })
}

/// Fetches a file, unless it is there and has this hash.
async fn one(
    fetching: &Fetching<'_>,
    listings: &[Listing],
    (number, file): (usize, &Entry),
    sha256: Option<String>,
    target: PathBuf,
) -> Result<Locked, HubError> {
    let sha256 = match sha256 {
        Some(sha256) => sha256,
        None => {
            let job = Job {
                number,
                entry: file,
                origins: origins(listings, file)?,
                origin: AtomicUsize::new(0),
            };
            fetching.fetch(&job, &target).await?
        }
    };
    fetching.progress.whole(number);
    Ok(locked(file, sha256))
}

fn locked(file: &Entry, sha256: String) -> Locked {
    Locked {
        path: file.path.clone().into(),
        size: file.size,
        sha256,
    }
}

fn record(request: &Request, listing: &Listing, files: Vec<Locked>) -> Lock {
    let source = Source {
        hub: Some(listing.endpoint.hub),
        ..request.source.clone()
    };
    Lock {
        source: source.to_string(),
        endpoint: listing.endpoint.to_string(),
        revision: listing.revision.clone(),
        commit: listing.commit.clone(),
        fetched: now(),
        files,
    }
}

/// The listings of all hubs that have the model and answer in time: in their order where they have one, else the first to
/// answer first.
async fn listings(client: &Client, source: &Source) -> Result<Vec<Listing>, HubError> {
    let endpoints = client.settings.endpoints.iter();
    let asked: Vec<&Endpoint> = endpoints
        .filter(|endpoint| source.hub.is_none_or(|hub| hub == endpoint.hub))
        .collect();
    let mut answers: FuturesUnordered<_> = asked
        .into_iter()
        .map(|endpoint| list(client, endpoint, source))
        .collect();
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(listing) => {
                found.push(listing);
                break;
            }
            Err(error) => errors.push(error),
        }
    }
    let others = async {
        while let Some(answer) = answers.next().await {
            found.extend(answer.ok());
        }
    };
    // Those that come too late are not needed.
    drop(tokio::time::timeout(GRACE, others).await);
    if client.settings.is_ordered {
        let place = |listing: &Listing| {
            let mut endpoints = client.settings.endpoints.iter();
            endpoints.position(|endpoint| *endpoint == listing.endpoint)
        };
        found.sort_by_key(place);
    }
    match (found.is_empty(), errors.len()) {
        (false, _) => Ok(found),
        (true, 1) => Err(errors.remove(0)),
        (true, 0) => Err(HubError::Listing(format!(
            "no hub is configured for {source}"
        ))),
        (true, _) => Err(HubError::NoHub(errors)),
    }
}

async fn list(client: &Client, endpoint: &Endpoint, source: &Source) -> Result<Listing, HubError> {
    let usual = endpoint.hub.default_revision();
    let revision = source.revision.as_deref().unwrap_or(usual);
    let listed = match endpoint.hub {
        Hub::HuggingFace => huggingface::list(client, endpoint, &source.model, revision).await,
        Hub::ModelScope => modelscope::list(client, endpoint, &source.model, revision).await,
    };
    listed.map_err(|error| error.of(&source.model, revision))
}

/// The places that have the same file.
fn origins(listings: &[Listing], file: &Entry) -> Result<Vec<Origin>, HubError> {
    let has_it = |listing: &&Listing| {
        let mut entries = listing.entries.iter();
        entries.any(|entry| {
            let agree = match (&entry.check, &file.check) {
                (Check::Sha256(a), Check::Sha256(b)) | (Check::GitSha1(a), Check::GitSha1(b)) => {
                    a == b
                }
                // Hashes of two kinds: what comes is held to the first listing's.
                _ => true,
            };
            entry.path == file.path && entry.size == file.size && agree
        })
    };
    let origin = |listing: &Listing| {
        let url = match listing.endpoint.hub {
            Hub::HuggingFace => huggingface::file(listing, &file.path),
            Hub::ModelScope => modelscope::file(listing, &file.path),
        };
        url.map(|url| Origin {
            endpoint: listing.endpoint.clone(),
            url,
        })
    };
    listings.iter().filter(has_it).map(origin).collect()
}
