//! Brings a model into a folder: whole, or not at all.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::AtomicUsize,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use crate::{
    Source,
    client::Client,
    error::HubError,
    fetch::{Fetching, Job},
    hash::Check,
    hubs::{listings, origins},
    listing::{ListedFile, Listing},
    lock::{Lock, Locked, now},
    progress::Progress,
    select::Selection,
    settings::Settings,
    work_folder::{WorkFolder, present::PresentFile, target::folder},
};

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
        return Ok(dry_run(request, listing, &files));
    }
    let (work, old) = begin(request, listing, &files)?;
    let caches = &client.settings.caches;
    let present = work
        .present(&listing.model, &files, caches, progress)
        .await?;
    if old.is_none() {
        work.refuse_theirs(&files, &present)
            .inspect_err(|_| work.end_if_empty())?;
    }
    work.check_room(work.needs(&files, &present))
        .inspect_err(|_| work.end_if_empty())?;
    let present = work.bring(&files, present).await;
    let permits = Semaphore::new(client.settings.connections.max(1));
    let fetching = Fetching {
        client: &client,
        model: &listing.model,
        permits: &permits,
        parts: &work.folder,
        progress,
    };
    let wanted = Wanted {
        listings: &listings,
        files: &files,
        present: &present,
    };
    let locked = wanted.fetch(&fetching, &work.tree).await?;
    let lock = record(request, listing, locked);
    let in_target = wanted.in_target();
    let n_kept = in_target.len();
    let in_cache = |present: &&PresentFile| present.is_in_cache();
    let n_found = present.iter().flatten().filter(in_cache).count();
    if n_kept == files.len() && old.as_ref().is_some_and(|old| old.is_same(&lock)) {
        work.end()?;
        return Ok(Pulled {
            lock,
            n_kept,
            n_found,
            out_of_date: Vec::new(),
        });
    }
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

/// Returns what a pull would fetch.
fn dry_run(request: &Request, listing: &Listing, files: &[&ListedFile]) -> Pulled {
    let known = |file: &&ListedFile| match &file.check {
        Check::Sha256(hex) => hex.clone(),
        Check::GitSha1(_) => String::new(),
    };
    let locked = files.iter().map(|file| locked(file, known(file))).collect();
    Pulled {
        lock: record(request, listing, locked),
        n_kept: 0,
        n_found: 0,
        out_of_date: Vec::new(),
    }
}

/// Opens the work folder, and reads the record of what a pull has fetched into the model's own.
fn begin(
    request: &Request,
    listing: &Listing,
    files: &[&ListedFile],
) -> Result<(WorkFolder, Option<Lock>), HubError> {
    let target = folder(&request.target)?;
    let work = WorkFolder::begin(target)?;
    work.prune(files)?;
    // A record that somebody wrote of files of their own protects them as none does.
    let old = Lock::read(&work.target)?.filter(|lock| !lock.is_local());
    if let Some(other) = old.as_ref().filter(|old| !old.is_of(&listing.model)) {
        work.end_if_empty();
        return Err(HubError::Other {
            folder: work.target,
            model: other.source.clone(),
        });
    }
    Ok((work, old))
}

/// The files of a model that are wanted, and those of them that are there.
struct Wanted<'a> {
    /// The listings of all hubs that have the model.
    listings: &'a [Listing],
    files: &'a [&'a ListedFile],
    /// One for each file.
    present: &'a [Option<PresentFile>],
}

impl Wanted<'_> {
    /// Fetches the files that are not there into the folder `tree`.
    async fn fetch(&self, fetching: &Fetching<'_>, tree: &Path) -> Result<Vec<Locked>, HubError> {
        let fetched = (0..self.files.len()).map(|number| self.fetch_one(fetching, number, tree));
        let fetched: Vec<_> = fetched.collect();
        let at_once = fetching.client.settings.connections.max(1);
        stream::iter(fetched).buffered(at_once).try_collect().await
    }

    /// Fetches a file, unless it is there.
    async fn fetch_one(
        &self,
        fetching: &Fetching<'_>,
        number: usize,
        tree: &Path,
    ) -> Result<Locked, HubError> {
        let file = self.files[number];
        let sha256 = match &self.present[number] {
            Some(present) => present.sha256.clone(),
            None => {
                let job = Job {
                    number,
                    entry: file,
                    origins: origins(self.listings, file)?,
                    origin: AtomicUsize::new(0),
                };
                fetching.fetch(&job, &tree.join(&file.path)).await?
            }
        };
        fetching.progress.whole(number);
        Ok(locked(file, sha256))
    }

    /// The files that are right in the model's folder.
    fn in_target(&self) -> Vec<PathBuf> {
        let all = self.files.iter().zip(self.present);
        all.filter(|(_, present)| present.as_ref().is_some_and(PresentFile::is_in_target))
            .map(|(file, _)| file.path.clone().into())
            .collect()
    }
}

fn locked(file: &ListedFile, sha256: String) -> Locked {
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
