//! Brings a model into a folder: whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream, stream::FuturesUnordered};
use tokio::sync::Semaphore;

use crate::{
    client::{Client, Endpoint, Settings, now},
    error::HubError,
    fetch::{Fetching, Job, Origin},
    huggingface,
    listing::{Check, Entry, Listing},
    lock::{LOCK_FILE, Lock, Locked},
    modelscope,
    part::hash_file,
    select::Selection,
    source::{Hub, Source},
};

/// Other hubs that have the model too are waited for so long, once one has it.
const GRACE: Duration = Duration::from_secs(2);
/// Room beyond the files' own, for what the file system needs.
const SPARE: u64 = 16 << 20;

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
    if !files.iter().any(|file| file.path == "config.json") && !request.selection.all {
        return Err(HubError::Listing(format!(
            "{} has no config.json at {}: it is no model of transformers; --all fetches what is there",
            listing.model, listing.endpoint
        )));
    }
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
        });
    }
    let work = Work::begin(&request.target)?;
    let kept = work.kept(&files, progress).await?;
    let missing = files.iter().zip(&kept).filter(|(_, kept)| kept.is_none());
    work.check_room(missing.map(|(file, _)| file.size).sum())?;
    let permits = Semaphore::new(client.settings.connections.max(1));
    let fetching = Fetching {
        client: &client,
        permits: &permits,
        parts: &work.folder,
        progress,
    };
    let fetching = &fetching;
    let fetched = files
        .iter()
        .zip(&kept)
        .enumerate()
        .map(|(number, (file, kept))| {
            let target = work.tree.join(&file.path);
            let listings = &listings;
            async move {
                let sha256 = match kept {
                    Some((sha256, _)) => sha256.clone(),
                    None => {
                        let job = Job {
                            number,
                            entry: file,
                            origins: origins(listings, file)?,
                        };
                        fetching.fetch(&job, &target).await?
                    }
                };
                progress.whole(number);
                Ok::<_, HubError>(locked(file, sha256))
            }
        });
    let at_once = client.settings.connections.max(1);
    let locked: Vec<Locked> = stream::iter(fetched)
        .buffered(at_once)
        .try_collect()
        .await?;
    let lock = record(request, listing, locked);
    let n_kept = kept
        .iter()
        .flatten()
        .filter(|(_, place)| *place == Place::Target)
        .count();
    work.publish(&lock)?;
    Ok(Pulled { lock, n_kept })
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
        endpoint: listing.endpoint.url.clone(),
        revision: listing.revision.clone(),
        commit: listing.commit.clone(),
        fetched: now(),
        files,
    }
}

/// The listings of all hubs that have the model and answer in time, the first to answer first.
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

/// The place of a file that need not be fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Target,
    /// Of an earlier pull that did not end.
    Tree,
}

/// The folder beside the target in which a model is made. Held by one process.
struct Work<'a> {
    target: &'a Path,
    folder: PathBuf,
    tree: PathBuf,
    _lock: File,
}

impl<'a> Work<'a> {
    fn begin(target: &'a Path) -> Result<Self, HubError> {
        let mut name = target.as_os_str().to_owned();
        name.push(".embedgate-pull");
        let folder = PathBuf::from(name);
        let tree = folder.join("files");
        fs::create_dir_all(&tree).map_err(HubError::file(&tree))?;
        let path = folder.join("lock");
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut lock = opened.map_err(HubError::file(&path))?;
        if lock.try_lock().is_err() {
            let mut holder = String::new();
            // Who it is cannot be read where it has not said yet.
            drop(lock.read_to_string(&mut holder));
            return Err(HubError::Busy {
                folder: target.to_owned(),
                holder: holder.trim().to_owned(),
            });
        }
        let written = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(HubError::file(&path))?;
        Ok(Self {
            target,
            folder,
            tree,
            _lock: lock,
        })
    }

    /// The sha256 of each file that is there and right, and where it is.
    async fn kept(
        &self,
        files: &[&Entry],
        progress: &dyn Progress,
    ) -> Result<Vec<Option<(String, Place)>>, HubError> {
        let mut kept = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let places = [
                (&self.tree, Place::Tree),
                (&self.target.to_owned(), Place::Target),
            ]
            .map(|(folder, place)| (folder.join(&file.path), place));
            let entry = (*file).clone();
            let found = tokio::task::spawn_blocking(move || {
                places.into_iter().find_map(|(path, place)| {
                    let is_long = path
                        .metadata()
                        .is_ok_and(|found| found.is_file() && found.len() == entry.size);
                    let hashed = is_long
                        .then(|| hash_file(&path, entry.size, &entry.check).ok())
                        .flatten();
                    hashed
                        .filter(|(_, holds)| *holds)
                        .map(|(sha256, _)| (sha256, place))
                })
            });
            let found = found.await.unwrap_or(None);
            if found.is_some() {
                progress.came(number, file.size);
            }
            kept.push(found);
        }
        Ok(kept)
    }

    /// Fails where the file system has too little room for so many bytes more.
    fn check_room(&self, needed: u64) -> Result<(), HubError> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|error| HubError::file(&self.folder)(error.into()))?;
        let free = stat.f_bavail * stat.f_frsize;
        // Parts of an earlier pull have room already.
        let entries = fs::read_dir(&self.folder).map_err(HubError::file(&self.folder))?;
        let held = |entry: fs::DirEntry| {
            use std::os::unix::fs::MetadataExt;
            entry.metadata().map_or(0, |found| found.blocks() * 512)
        };
        let there: u64 = entries.flatten().map(held).sum();
        match needed + SPARE <= free + there {
            true => Ok(()),
            false => Err(HubError::NoRoom {
                folder: self.target.to_owned(),
                free: free >> 20,
                needed: needed.saturating_sub(there) >> 20,
            }),
        }
    }

    /// Puts the tree in the target's place, with the record, and all other files of the target.
    fn publish(&self, lock: &Lock) -> Result<(), HubError> {
        if self.target.exists() {
            keep_others(self.target, &self.tree)?;
        }
        lock.write(&self.tree)?;
        let old = self.folder.join("old");
        if self.target.exists() {
            remove(&old)?;
            fs::rename(self.target, &old).map_err(HubError::file(self.target))?;
        }
        if let Err(error) = fs::rename(&self.tree, self.target) {
            // As it was.
            drop(fs::rename(&old, self.target));
            return Err(HubError::file(self.target)(error));
        }
        remove(&self.folder)
    }
}

fn remove(folder: &Path) -> Result<(), HubError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::file(folder)(error))
        }
        _ => Ok(()),
    }
}

/// Links the files of a folder into another that has none of their names.
fn keep_others(from: &Path, to: &Path) -> Result<(), HubError> {
    fs::create_dir_all(to).map_err(HubError::file(to))?;
    for entry in fs::read_dir(from).map_err(HubError::file(from))? {
        let entry = entry.map_err(HubError::file(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(HubError::file(&path))?;
        if kind.is_dir() {
            keep_others(&path, &target)?;
        } else if entry.file_name() != LOCK_FILE && !target.exists() {
            let linked = fs::hard_link(&path, &target);
            // File systems without links have copies.
            linked
                .or_else(|_| fs::copy(&path, &target).map(|_| ()))
                .map_err(HubError::file(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let _first = Work::begin(&target).unwrap();
        let Err(HubError::Busy { holder, .. }) = Work::begin(&target) else {
            panic!("two hold it");
        };
        assert_eq!(holder, std::process::id().to_string());
    }

    #[test]
    fn other_files_of_the_folder_stay_and_those_of_the_model_are_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::create_dir_all(target.join("onnx")).unwrap();
        for (name, text) in [
            ("config.json", "old"),
            ("onnx/model_gpu.onnx", "mine"),
            (LOCK_FILE, "old"),
        ] {
            fs::write(target.join(name), text).unwrap();
        }
        let work = Work::begin(&target).unwrap();
        fs::write(work.tree.join("config.json"), "new").unwrap();
        let lock = Lock {
            source: "hf:a/b".into(),
            endpoint: String::new(),
            revision: String::new(),
            commit: String::new(),
            fetched: 0,
            files: Vec::new(),
        };
        work.publish(&lock).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert_eq!(
            (&*read("config.json"), &*read("onnx/model_gpu.onnx")),
            ("new", "mine")
        );
        assert_eq!(Lock::read(&target).unwrap(), Some(lock));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else stays");
    }

    #[test]
    fn too_little_room_is_said_before_a_byte_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let work = Work::begin(&target).unwrap();
        work.check_room(1000).unwrap();
        let error = work.check_room(1 << 60).unwrap_err().to_string();
        assert!(error.contains("MB free"), "{error}");
    }
}
