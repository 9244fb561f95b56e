//! Private copies of model files.
//!
//! ONNX Runtime maps the files that hold large tensors. A mapped file that another program cuts off ends this process by
//! SIGBUS, and one that is overwritten changes the vectors. So a session is given a copy, in a folder that only this user may
//! open. On file systems that share blocks between files (XFS, Btrfs) the copy takes no room.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// The folder of all copies, in the state folder.
const FOLDER: &str = "onnx/private";
const PREFIX: &str = "copy-";
/// A file that is locked: of the folder of all copies while one is made, and of a copy as long as its process uses it.
const LOCK: &str = "lock";

/// A model file and the files that it refers to. Removed when dropped.
#[derive(Debug)]
pub(crate) struct PrivateCopy {
    model: PathBuf,
    _folder: TempDir,
    _lock: File,
}

impl PrivateCopy {
    /// Copies a model file, and the files that it refers to, which lie in its folder or below. Into the state folder, or into
    /// the system's folder for temporary files where there is none.
    ///
    /// # Errors
    /// When a file cannot be read, or there is no room.
    pub(crate) fn new(model: &Path, data: &[PathBuf], state: Option<&Path>) -> io::Result<Self> {
        let (folder, lock) = match state {
            Some(state) => folder_in(&state.join(FOLDER))?,
            None => folder_in(&tempfile::env::temp_dir().join(in_temporary_folder()))?,
        };
        let name = model.file_name().unwrap_or_default();
        let beside = model.with_file_name(".").canonicalize()?;
        for file in data {
            let within = file.strip_prefix(&beside).map_err(io::Error::other)?;
            let to = folder.path().join(within);
            fs::create_dir_all(to.parent().unwrap_or(folder.path()))?;
            self::copy(file, &to)?;
        }
        let copy = folder.path().join(name);
        self::copy(model, &copy)?;
        Ok(Self {
            model: copy,
            _folder: folder,
            _lock: lock,
        })
    }

    /// The copy of the model file.
    pub(crate) fn model(&self) -> &Path {
        &self.model
    }
}

/// Makes a folder for one copy, and removes what killed processes left.
fn folder_in(all: &Path) -> io::Result<(TempDir, File)> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(all)?;
    let owner = all.metadata()?;
    if owner.uid() != rustix::process::getuid().as_raw() || owner.mode() & 0o022 != 0 {
        let message = format!("{} is not this user's alone", all.display());
        return Err(io::Error::other(message));
    }
    // Held until the new copy has its own lock: nobody may take it for one that was left.
    let lock = File::create(all.join(LOCK))?;
    lock.lock()?;
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        let is_copy = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_left = || match File::open(entry.path().join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_copy && is_left() {
            // Another user's cannot be removed, and is no reason to fail.
            _ = fs::remove_dir_all(entry.path());
        }
    }
    locked(TempDir::with_prefix_in(PREFIX, all)?)
}

/// A user's own name there. It must be this user's: another one could exchange what is in it.
fn in_temporary_folder() -> String {
    format!("embedgate-onnx-{}", rustix::process::getuid().as_raw())
}

/// Copies a file for this user alone, whoever may read or write the original.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600))
}

fn locked(folder: TempDir) -> io::Result<(TempDir, File)> {
    let lock = File::create(folder.path().join(LOCK))?;
    lock.lock()?;
    Ok((folder, lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_removed_with_its_owner_and_what_a_killed_one_left_by_the_next() {
        let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let model = source.path().join("a.onnx");
        let data = source.path().canonicalize().unwrap().join("deep/data");
        fs::create_dir(data.parent().unwrap()).unwrap();
        fs::write(&model, "model").unwrap();
        fs::write(&data, "data").unwrap();
        let all = state.path().join(FOLDER);
        let left = all.join("copy-left");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let copy = |data: &[PathBuf]| PrivateCopy::new(&model, data, Some(state.path())).unwrap();
        let first = copy(std::slice::from_ref(&data));
        assert!(!left.exists());
        let second = copy(&[]);
        assert_eq!(fs::read(first.model()).unwrap(), b"model");
        let copied = first.model().with_file_name("deep").join("data");
        assert_eq!(fs::read(copied).unwrap(), b"data");
        let n_copies = || fs::read_dir(&all).unwrap().count() - 1;
        assert_eq!(n_copies(), 2);
        drop((first, second));
        assert_eq!(n_copies(), 0);
        let missing = source.path().join("none");
        assert!(PrivateCopy::new(&model, &[missing], Some(state.path())).is_err());
        assert_eq!(n_copies(), 0);
    }
}
