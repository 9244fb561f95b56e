//! The record of a fetched model: where it is from, and what each of its bytes must be.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{error::HubError, listing::Check, part::hash_file};

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

/// The state of a file of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it must be.
    Right,
    /// It is not there.
    Missing,
    /// It has another length.
    Length(u64),
    /// It has other bytes.
    Bytes,
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
        let lock = serde_json::from_slice(&text).map_err(|error| HubError::Lock {
            path,
            problem: format!("it is no record of a fetched model: {error}"),
        })?;
        Ok(Some(lock))
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
        let written = fs::write(&fresh, text + "\n").and_then(|()| fs::rename(&fresh, &path));
        written.map_err(HubError::file(path))
    }
}

/// Reads every file of the record, and says of each whether it is right. No request is sent.
///
/// # Errors
/// When a file that is there cannot be read.
pub fn verify<'a>(
    folder: &'a Path,
    lock: &'a Lock,
) -> impl Iterator<Item = Result<(&'a Locked, Verdict), HubError>> {
    lock.files.iter().map(|file| {
        let path = folder.join(&file.path);
        let verdict = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Missing,
            Err(error) => return Err(HubError::file(path)(error)),
            Ok(found) if found.len() != file.size => Verdict::Length(found.len()),
            Ok(_) => {
                let check = Check::Sha256(file.sha256.clone());
                let (_, holds) =
                    hash_file(&path, file.size, &check).map_err(HubError::file(path))?;
                match holds {
                    true => Verdict::Right,
                    false => Verdict::Bytes,
                }
            }
        };
        Ok((file, verdict))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_a_missing_and_a_cut_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, size| Locked {
            path: name.into(),
            size,
            // Of "hello".
            sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".into(),
        };
        let lock = Lock {
            source: "hf:a/b".into(),
            endpoint: "http://127.0.0.1".into(),
            revision: "main".into(),
            commit: "c".into(),
            fetched: 0,
            files: ["right", "damaged", "cut", "missing"]
                .map(|name| file(name, 5))
                .into(),
        };
        lock.write(folder.path()).unwrap();
        assert_eq!(Lock::read(folder.path()).unwrap().as_ref(), Some(&lock));
        for (name, text) in [("right", "hello"), ("damaged", "hellO"), ("cut", "hell")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let verdicts: Vec<_> = verify(folder.path(), &lock)
            .map(|one| one.unwrap().1)
            .collect();
        let expected = [
            Verdict::Right,
            Verdict::Bytes,
            Verdict::Length(4),
            Verdict::Missing,
        ];
        assert_eq!(verdicts, expected);
        let none = tempfile::tempdir().unwrap();
        assert_eq!(Lock::read(none.path()).unwrap(), None);
        fs::write(none.path().join(LOCK_FILE), "{").unwrap();
        assert!(Lock::read(none.path()).is_err());
    }
}
