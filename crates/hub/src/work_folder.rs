//! The folder beside a model's own in which a pull makes the model.

mod hold;
pub(crate) mod present;
mod publish;
pub(crate) mod target;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use self::hold::hold;
use crate::{error::HubError, listing::ListedFile, part};

/// Room beyond the files' own, for what the file system needs.
const SPARE: u64 = 16 << 20;

/// The folder beside the target in which a model is made. Held by one process.
pub(crate) struct WorkFolder {
    pub(crate) target: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) tree: PathBuf,
    _lock: File,
}

impl WorkFolder {
    /// Makes the folder, or takes up what an earlier pull left.
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
    pub(crate) fn prune(&self, files: &[&ListedFile]) -> Result<(), HubError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_ended_between_two_renames_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let old = folder.path().join("model.embedgate-pull/old");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("mine"), "").unwrap();
        drop(WorkFolder::begin(target.clone()).unwrap());
        assert!(target.join("mine").exists());
    }

    #[test]
    fn too_little_room_is_said_before_a_byte_is_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("model");
        let work = WorkFolder::begin(target).unwrap();
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
