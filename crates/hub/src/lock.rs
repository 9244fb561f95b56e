//! The record of a fetched model: where it is from, and what each of its bytes must be.

mod folder;
mod local;
pub(crate) mod verify;

use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use embedgate_config::Source;
use serde::{Deserialize, Serialize};

use crate::error::HubError;

/// Its name, in the model's folder.
pub const LOCK_FILE: &str = "embedgate.lock.json";

/// The record of a fetched model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// As it was asked for, with the hub that had it.
    pub source: String,
    /// The hub's address.
    pub endpoint: String,
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit; the revision where the hub has none for files.
    pub commit: String,
    /// Seconds since 1970.
    pub fetched: u64,
    /// Every file that was fetched.
    pub files: Vec<Locked>,
}

/// A file of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Relative to the folder.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// In hex.
    pub sha256: String,
}

impl Lock {
    /// The record of a folder; none where it has none.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, HubError> {
        let path = folder.join(LOCK_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HubError::file(path)(error)),
        };
        let wrong = |path, problem| HubError::Lock { path, problem };
        let lock: Self = serde_json::from_slice(&text).map_err(|error| {
            let problem = format!("it is no record of a fetched model: {error}");
            wrong(path.clone(), problem)
        })?;
        // Whoever wrote it: files are read and deleted by it.
        if let Some(file) = lock.files.iter().find(|file| !is_below(&file.path)) {
            let problem = format!("it names {}, outside of the folder", file.path.display());
            return Err(wrong(path, problem));
        }
        Ok(Some(lock))
    }

    /// Returns true when the lock belongs to a folder that no pull has fetched.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.endpoint.is_empty()
    }

    /// Returns true when the lock belongs to this model, from any hub.
    pub(crate) fn is_of(&self, model: &str) -> bool {
        let source = self.source.parse::<Source>();
        source.is_ok_and(|source| source.model == model)
    }

    /// True for the record of another pull of the same files.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let fetched = other.fetched;
        Self {
            fetched,
            ..self.clone()
        } == *other
    }

    /// Writes the record, all or nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), HubError> {
        let path = folder.join(LOCK_FILE);
        let fresh = folder.join(format!("{LOCK_FILE}.new"));
        let text = serde_json::to_string_pretty(self).map_err(|error| HubError::Lock {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        let write = || {
            let mut file = fs::File::create(&fresh)?;
            file.write_all((text + "\n").as_bytes())?;
            // Before it has its name, and the folder has the model's.
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(HubError::file(&path))
    }
}

/// Returns true when a path stays in the folder that it is relative to.
fn is_below(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, Component::Normal(_))) && path != Path::new("")
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reaches_no_file_outside_of_its_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("model");
        fs::create_dir(&folder).unwrap();
        let outside = temporary.path().join("precious.txt");
        fs::write(&outside, "").unwrap();
        let record = |path: &str| {
            format!(
                r#"{{"source": "hf:a/b", "endpoint": "http://a", "revision": "", "commit": "", "fetched": 0,
                "files": [{{"path": {path:?}, "size": 0, "sha256": ""}}]}}"#
            )
        };
        for path in ["../precious.txt", outside.to_str().unwrap(), ".", ""] {
            fs::write(folder.join(LOCK_FILE), record(path)).unwrap();
            let error = Lock::read(&folder).unwrap_err().to_string();
            assert!(error.contains("outside of the folder"), "{path}: {error}");
        }
        // Nor by a link.
        std::os::unix::fs::symlink(temporary.path(), folder.join("link")).unwrap();
        fs::write(folder.join(LOCK_FILE), record("link/precious.txt")).unwrap();
        Lock::read(&folder)
            .unwrap()
            .unwrap()
            .remove(&folder)
            .unwrap();
        assert!(outside.exists());
    }
}
