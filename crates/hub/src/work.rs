//! The folder beside a model's own in which a pull makes the model, and how it takes the model's place.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    error::HubError,
    existing::{Caches, bring},
    listing::Entry,
    lock::{LOCK_FILE, Lock},
    part::{self, hash_file},
    pull::Progress,
};

/// Room beyond the files' own, for what the file system needs.
const SPARE: u64 = 16 << 20;

/// The target without a slash at its end, and where a link leads.
pub(crate) fn folder(target: &Path) -> Result<PathBuf, HubError> {
    let real = match target.canonicalize() {
        Ok(real) => real,
        // It is not there yet.
        Err(_) => std::path::absolute(target)
            .map_err(HubError::file(target))?
            .components()
            .collect(),
    };
    let refused = |problem| {
        Err(HubError::Target {
            folder: target.to_owned(),
            problem,
        })
    };
    let (Some(_), Some(parent)) = (real.file_name(), real.parent()) else {
        return refused("is no folder that can be exchanged as a whole");
    };
    let is_link = target.symlink_metadata().is_ok();
    if (is_link && !real.exists()) || (real.exists() && !real.is_dir()) {
        return refused("is there and is no folder");
    }
    // Whoever works in a folder that was exchanged works in one that is gone.
    if Path::new(".")
        .canonicalize()
        .is_ok_and(|here| here.starts_with(&real))
    {
        return refused("is the working folder, or one above it: name a folder in it");
    }
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    if real.is_dir() && device(&real) != device(parent) {
        return refused(
            "is a disk of its own, which cannot be exchanged as a whole: name a folder within",
        );
    }
    Ok(real)
}

/// The place of a file that need not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Target,
    /// The tree of an earlier pull that did not end.
    Tree,
    /// The path where another program stored the file.
    Cache(PathBuf),
}

/// The folder beside the target in which a model is made. Held by one process.
pub(crate) struct Work {
    pub(crate) target: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) tree: PathBuf,
    _lock: File,
}

impl Work {
    pub(crate) fn begin(target: PathBuf) -> Result<Self, HubError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".embedgate-pull");
        let folder = target.with_file_name(name);
        let lock = hold(&folder, &target)?;
        let (tree, old) = (folder.join("files"), folder.join("old"));
        if !target.exists() && old.exists() {
            // A process that ended between two renames.
            fs::rename(&old, &target).map_err(HubError::file(&target))?;
        }
        fs::create_dir_all(&tree).map_err(HubError::file(&tree))?;
        Ok(Self {
            target,
            folder,
            tree,
            _lock: lock,
        })
    }

    /// Removes what an earlier pull left that this one does not want.
    pub(crate) fn prune(&self, files: &[&Entry]) -> Result<(), HubError> {
        let wanted: BTreeSet<PathBuf> = files.iter().map(|file| file.path.clone().into()).collect();
        keep_only(&self.tree, Path::new(""), &wanted)?;
        let parts: BTreeSet<String> = files.iter().map(|file| part::name(file)).collect();
        for entry in fs::read_dir(&self.folder).map_err(HubError::file(&self.folder))? {
            let path = entry.map_err(HubError::file(&self.folder))?.path();
            let is_part = path
                .extension()
                .is_some_and(|end| end == "part" || end == "journal");
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            if is_part && !parts.contains(&*stem) {
                fs::remove_file(&path).map_err(HubError::file(&path))?;
            }
        }
        Ok(())
    }

    /// Refuses a folder that somebody else filled, where a file of it would be lost, or taken for one of the model.
    pub(crate) fn refuse_theirs(
        &self,
        files: &[&Entry],
        kept: &[Option<(String, Place)>],
    ) -> Result<(), HubError> {
        let in_target = |path: &str| self.target.join(path).symlink_metadata().is_ok();
        let mut others = files.iter().zip(kept).filter(|(file, kept)| {
            let is_right = matches!(kept, Some((_, Place::Target)));
            !is_right && in_target(&file.path)
        });
        let other = others
            .next()
            .map(|(file, _)| format!("another {}", file.path));
        let listed = |name: &str| files.iter().any(|file| file.path == name);
        let weights = [
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
        ];
        let weights = weights
            .into_iter()
            .find(|name| in_target(name) && !listed(name));
        match other.or_else(|| weights.map(str::to_owned)) {
            None => Ok(()),
            Some(problem) => Err(HubError::Theirs {
                folder: self.target.clone(),
                problem,
            }),
        }
    }

    /// The sha256 of each file that is there and right, and where it is.
    pub(crate) async fn kept(
        &self,
        model: &str,
        files: &[&Entry],
        caches: &Caches,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<(String, Place)>>, HubError> {
        let mut kept = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let (in_tree, in_target) = (self.tree.join(&file.path), self.target.join(&file.path));
            let of_caches = caches.candidates(model, file);
            let entry = (*file).clone();
            // Reading takes seconds.
            let looking = tokio::task::spawn_blocking(move || {
                let right = |path: &Path| {
                    let found = path.metadata().ok()?;
                    let is_long = found.is_file() && found.len() == entry.size;
                    let hashed = is_long.then(|| hash_file(path, entry.size, &entry.check).ok());
                    let (sha256, holds) = hashed.flatten()?;
                    holds.then_some(sha256)
                };
                if let Some(sha256) = right(&in_tree) {
                    return Some((sha256, Place::Tree));
                }
                if let Some(sha256) = right(&in_target) {
                    return Some((sha256, Place::Target));
                }
                let found = of_caches.into_iter();
                found
                    .filter_map(|path| Some((right(&path)?, Place::Cache(path))))
                    .next()
            });
            let found = looking.await.unwrap_or(None);
            if found.is_some() {
                progress.came(number, file.size);
            }
            kept.push(found);
        }
        Ok(kept)
    }

    /// Bytes that the disk needs room for: of files that are fetched, and of those that are copied from another disk.
    pub(crate) fn needs(&self, files: &[&Entry], kept: &[Option<(String, Place)>]) -> u64 {
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        let here = device(&self.folder);
        let is_written = |kept: &Option<(String, Place)>| match kept {
            None => true,
            Some((_, Place::Cache(path))) => device(path) != here,
            Some((_, Place::Target | Place::Tree)) => false,
        };
        let written = files.iter().zip(kept).filter(|(_, kept)| is_written(kept));
        written.fold(0, |sum, (file, _)| sum.saturating_add(file.size))
    }

    /// Brings what is right in a cache into the tree. What cannot be brought is fetched.
    pub(crate) async fn bring(
        &self,
        files: &[&Entry],
        mut kept: Vec<Option<(String, Place)>>,
    ) -> Vec<Option<(String, Place)>> {
        for (file, kept) in files.iter().zip(&mut kept) {
            let Some((_, Place::Cache(from))) = kept else {
                continue;
            };
            let (source, target) = (from.clone(), self.tree.join(&file.path));
            let bringing = tokio::task::spawn_blocking(move || bring(&source, &target));
            let brought = bringing.await.map_err(io::Error::other).flatten();
            if let Err(error) = brought {
                tracing::warn!(
                    "{} is right and cannot be taken, so that it is fetched: {error}",
                    from.display()
                );
                *kept = None;
            }
        }
        kept
    }

    /// Fails where the file system has too little room for so many bytes more.
    pub(crate) fn check_room(&self, needed: u64) -> Result<(), HubError> {
        let stat = rustix::fs::statvfs(&self.folder)
            .map_err(|error| HubError::file(&self.folder)(error.into()))?;
        let free = stat.f_bavail * stat.f_frsize;
        // Parts of an earlier pull have room already.
        let entries = fs::read_dir(&self.folder).map_err(HubError::file(&self.folder))?;
        let held = |entry: fs::DirEntry| entry.metadata().map_or(0, |found| found.blocks() * 512);
        let there: u64 = entries.flatten().map(held).sum();
        let needed = needed.saturating_add(SPARE).saturating_sub(there);
        match needed <= free {
            true => Ok(()),
            false => Err(HubError::NoRoom {
                folder: self.target.clone(),
                free: free / 1_000_000,
                needed: needed / 1_000_000,
            }),
        }
    }

    /// Puts the tree in the target's place, with the record and all files of the target that no pull has fetched. `in_target` are
    /// files of the model that are right there.
    pub(crate) fn publish(
        &self,
        lock: &Lock,
        old: Option<&Lock>,
        in_target: &[PathBuf],
    ) -> Result<(), HubError> {
        for path in in_target {
            let in_tree = self.tree.join(path);
            match fs::remove_file(&in_tree) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(HubError::file(in_tree)(error));
                }
                _ => {}
            }
        }
        if self.target.exists() {
            let listed: BTreeSet<&Path> = lock.files.iter().map(|file| &*file.path).collect();
            let fetched = old
                .into_iter()
                .flat_map(|old| &old.files)
                .map(|file| &*file.path);
            let gone: BTreeSet<&Path> = fetched.filter(|path| !listed.contains(path)).collect();
            keep_others(&self.target, &self.tree, Path::new(""), &gone)?;
            if let Ok(found) = self.target.metadata() {
                let kept = fs::set_permissions(&self.tree, found.permissions());
                kept.map_err(HubError::file(&self.tree))?;
            }
        }
        lock.write(&self.tree)?;
        sync(&self.tree)?;
        let exchanged = match self.target.exists() {
            true => exchange(&self.tree, &self.target, &self.folder.join("old")),
            false => fs::rename(&self.tree, &self.target),
        };
        exchanged.map_err(HubError::file(&self.target))?;
        self.target.parent().map(sync).transpose()?;
        self.end()
    }

    /// Removes the folder where nothing in it would be gone on with.
    pub(crate) fn end_if_empty(&self) {
        let is_empty =
            |folder: &Path| fs::read_dir(folder).is_ok_and(|mut all| all.next().is_none());
        let parts = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let has_parts = parts
            .into_iter()
            .any(|entry| entry.path().extension().is_some());
        if is_empty(&self.tree) && !has_parts {
            // It does no harm where it stays.
            drop(self.end());
        }
    }

    /// Removes the folder.
    pub(crate) fn end(&self) -> Result<(), HubError> {
        remove(&self.folder)
    }
}

/// Makes the work folder and holds it.
fn hold(folder: &Path, target: &Path) -> Result<File, HubError> {
    let path = folder.join("lock");
    loop {
        fs::create_dir_all(folder).map_err(HubError::file(folder))?;
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut lock = match opened {
            // Another process has ended its pull just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(HubError::file(&path))?,
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is cannot be read where it has not said yet.
                drop(lock.read_to_string(&mut holder));
                return Err(HubError::Busy {
                    folder: target.to_owned(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(HubError::file(path)(error)),
        }
        // A lock of a file that was removed meanwhile holds nobody off.
        let number = |found: io::Result<fs::Metadata>| found.map(|found| found.ino()).ok();
        if number(lock.metadata()) != number(path.metadata()) {
            continue;
        }
        let written = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(HubError::file(&path))?;
        return Ok(lock);
    }
}

/// Puts a folder in the place of another. In one step where the file system can; else the other is at `old` for a moment, and
/// stays there if the process ends then: all that it had is in the new folder, which the next pull puts in its place.
fn exchange(new: &Path, target: &Path, old: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    fs::rename(target, old)?;
    fs::rename(new, target).inspect_err(|_| {
        // As it was.
        drop(fs::rename(old, target));
    })
}

/// Waits until the names in a folder are on the disk.
fn sync(folder: &Path) -> Result<(), HubError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(HubError::file(folder))
}

fn remove(folder: &Path) -> Result<(), HubError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::file(folder)(error)),
        _ => Ok(()),
    }
}

/// Removes the files of a folder that are not wanted. `within` is its path below the top.
fn keep_only(folder: &Path, within: &Path, wanted: &BTreeSet<PathBuf>) -> Result<(), HubError> {
    for entry in fs::read_dir(folder).map_err(HubError::file(folder))? {
        let entry = entry.map_err(HubError::file(folder))?;
        let (path, below) = (entry.path(), within.join(entry.file_name()));
        let kind = entry.file_type().map_err(HubError::file(&path))?;
        if kind.is_dir() {
            keep_only(&path, &below, wanted)?;
        } else if !wanted.contains(&below) {
            fs::remove_file(&path).map_err(HubError::file(&path))?;
        }
    }
    Ok(())
}

/// Links the files of a folder into another that has none of their names, but for its record and those that are `gone`.
fn keep_others(
    from: &Path,
    to: &Path,
    within: &Path,
    gone: &BTreeSet<&Path>,
) -> Result<(), HubError> {
    for entry in fs::read_dir(from).map_err(HubError::file(from))? {
        let entry = entry.map_err(HubError::file(from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let below = within.join(entry.file_name());
        let kind = entry.file_type().map_err(HubError::file(&path))?;
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(HubError::file(&target))?;
            if let Ok(found) = path.metadata() {
                let kept = fs::set_permissions(&target, found.permissions());
                kept.map_err(HubError::file(&target))?;
                // Only who may give files away can keep their owner.
                drop(std::os::unix::fs::chown(
                    &target,
                    Some(found.uid()),
                    Some(found.gid()),
                ));
            }
            keep_others(&path, &target, &below, gone)?;
        } else if below != Path::new(LOCK_FILE)
            && !gone.contains(&*below)
            && target.symlink_metadata().is_err()
        {
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
    use crate::{listing::Check, lock::Locked};

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.into(),
            size: 3,
            check: Check::Sha256(String::new()),
        }
    }

    #[test]
    fn a_folder_that_somebody_else_filled_is_refused_where_a_file_would_be_lost() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        fs::create_dir(&target).unwrap();
        let work = Work::begin(target.clone()).unwrap();
        let config = entry("config.json");
        let refused = |kept: Option<(String, Place)>| work.refuse_theirs(&[&config], &[kept]);
        assert!(refused(None).is_ok(), "nothing is there");
        fs::write(target.join("config.json"), "mine").unwrap();
        assert!(
            refused(Some((String::new(), Place::Target))).is_ok(),
            "it is right"
        );
        let error = refused(None).unwrap_err().to_string();
        assert!(
            error.contains("another config.json") && error.contains("--to"),
            "{error}"
        );
        fs::remove_file(target.join("config.json")).unwrap();
        fs::write(target.join("model.safetensors"), "mine").unwrap();
        let error = refused(None).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }

    #[test]
    fn a_pull_that_ended_between_two_renames_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let old = folder.path().join("model.embedgate-pull/old");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("mine"), "").unwrap();
        drop(Work::begin(target.clone()).unwrap());
        assert!(target.join("mine").exists());
    }

    #[test]
    fn a_target_is_a_folder_that_can_be_exchanged() {
        let temporary = tempfile::tempdir().unwrap();
        let real = temporary.path().canonicalize().unwrap();
        assert_eq!(folder(&real.join("new/")).unwrap(), real.join("new"));
        fs::create_dir(real.join("model")).unwrap();
        std::os::unix::fs::symlink(real.join("model"), real.join("link")).unwrap();
        assert_eq!(folder(&real.join("link")).unwrap(), real.join("model"));
        for wrong in ["/", ""] {
            assert!(folder(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_second_process_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let _first = Work::begin(target.clone()).unwrap();
        let Err(HubError::Busy { holder, .. }) = Work::begin(target) else {
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
            ("old.bin", "old"),
            ("onnx/model_gpu.onnx", "mine"),
            (LOCK_FILE, "old"),
        ] {
            fs::write(target.join(name), text).unwrap();
        }
        let work = Work::begin(target.clone()).unwrap();
        fs::write(work.tree.join("config.json"), "new").unwrap();
        // Of a pull of another revision that did not end.
        fs::write(work.tree.join("model.safetensors"), "stale").unwrap();
        let record = |paths: &[&str]| Lock {
            source: "hf:a/b".into(),
            endpoint: String::new(),
            revision: String::new(),
            commit: String::new(),
            fetched: 0,
            files: paths
                .iter()
                .map(|path| Locked {
                    path: path.into(),
                    size: 3,
                    sha256: String::new(),
                })
                .collect(),
        };
        let (lock, old) = (
            record(&["config.json"]),
            record(&["config.json", "old.bin"]),
        );
        work.prune(&[&entry("config.json")]).unwrap();
        work.publish(&lock, Some(&old), &[]).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert_eq!(
            (&*read("config.json"), &*read("onnx/model_gpu.onnx")),
            ("new", "mine")
        );
        assert_eq!(Lock::read(&target).unwrap(), Some(lock));
        // Neither the stale file nor that of the old revision.
        let names = fs::read_dir(&target)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["config.json", LOCK_FILE, "onnx"]);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing else stays");
    }

    #[test]
    fn too_little_room_is_said_before_a_byte_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let work = Work::begin(target).unwrap();
        work.check_room(1000).unwrap();
        let error = work.check_room(1 << 60).unwrap_err().to_string();
        assert!(error.contains("MB free"), "{error}");
        fs::write(work.folder.join("a.part"), "").unwrap();
        work.end_if_empty();
        assert!(work.folder.exists(), "a part is gone on with");
        fs::remove_file(work.folder.join("a.part")).unwrap();
        work.end_if_empty();
        assert!(!work.folder.exists());
    }
}
