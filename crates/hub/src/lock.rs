//! The record of a fetched model: where it is from, and what each of its bytes must be.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use embedgate_config::Source;
use serde::{Deserialize, Serialize};

use crate::{client::now, error::HubError, listing::Check, part::hash_file};

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

    /// Writes the record of a folder that no pull has fetched: what is there now is right. Hidden files are no part of a model.
    ///
    /// # Errors
    /// When it has a record, or a file cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Self, HubError> {
        let path = folder.join(LOCK_FILE);
        if path.exists() {
            let problem = "it is there already: `embedgate models verify` compares with it; delete it to write another";
            return Err(HubError::Lock {
                path,
                problem: problem.into(),
            });
        }
        if !folder.join("config.json").is_file() {
            return Err(HubError::Target {
                folder: folder.to_owned(),
                problem: "is no model's folder: it has no config.json",
            });
        }
        let mut files = Vec::new();
        files_below(folder, Path::new(""), &mut files)?;
        files.retain(|file| !is_hidden(file));
        files.sort();
        let mut locked = Vec::new();
        for file in files {
            let path = folder.join(&file);
            let size = path.metadata().map_err(HubError::file(&path))?.len();
            // Compared with nothing: what it is, it shall be.
            let none = Check::Sha256(String::new());
            let (sha256, _) = hash_file(&path, size, &none).map_err(HubError::file(&path))?;
            locked.push(Locked {
                path: file,
                size,
                sha256,
            });
        }
        let lock = Self {
            source: "this folder".into(),
            endpoint: String::new(),
            revision: String::new(),
            commit: String::new(),
            fetched: now(),
            files: locked,
        };
        lock.write(folder)?;
        Ok(lock)
    }

    /// Deletes the files of the record from a folder, the record, and folders that are empty then. Returns how many other files
    /// are still there.
    ///
    /// # Errors
    /// When a file cannot be deleted.
    pub fn remove(&self, folder: &Path) -> Result<usize, HubError> {
        for file in self
            .files
            .iter()
            .map(|file| &*file.path)
            .chain([Path::new(LOCK_FILE)])
        {
            // A folder that is a link leads to files of somebody else.
            let mut within = file.ancestors().skip(1);
            if within.any(|part| part != Path::new("") && folder.join(part).is_symlink()) {
                continue;
            }
            let path = folder.join(file);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(HubError::file(path)(error));
                }
                _ => {}
            }
            // Those that hold something stay.
            for below in file.ancestors().skip(1) {
                drop(fs::remove_dir(folder.join(below)));
            }
        }
        let mut left = Vec::new();
        if folder.exists() {
            files_below(folder, Path::new(""), &mut left)?;
        }
        Ok(left.len())
    }

    /// ONNX models of the folder that were written from weights which this record has others of: nobody notices from the file
    /// alone that it is out of date.
    pub(crate) fn out_of_date(&self, before: Option<&Self>, folder: &Path) -> Vec<PathBuf> {
        let is_weights = |path: &Path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("safetensors" | "bin" | "pt"))
        };
        let of = |lock: &Self| -> BTreeMap<PathBuf, String> {
            let weights = lock.files.iter().filter(|file| is_weights(&file.path));
            let weights = weights.map(|file| (file.path.clone(), file.sha256.clone()));
            weights.collect()
        };
        let Some(before) = before.filter(|before| of(before) != of(self)) else {
            return Vec::new();
        };
        let is_fetched = |lock: &Self, path: &Path| lock.files.iter().any(|file| file.path == path);
        let mut files = Vec::new();
        // One that cannot be read is not served either.
        drop(files_below(folder, Path::new(""), &mut files));
        files.retain(|path| {
            let is_onnx = path.extension().is_some_and(|ending| ending == "onnx");
            is_onnx && !is_fetched(self, path) && !is_fetched(before, path)
        });
        files.sort();
        files
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

fn is_hidden(path: &Path) -> bool {
    let mut parts = path.components();
    parts.any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

/// The files of a folder and of those below it, relative to it. Links to folders are not followed, and what is no file (a pipe, a
/// device) is left out.
fn files_below(folder: &Path, within: &Path, found: &mut Vec<PathBuf>) -> Result<(), HubError> {
    let here = folder.join(within);
    for entry in fs::read_dir(&here).map_err(HubError::file(&here))? {
        let entry = entry.map_err(HubError::file(&here))?;
        let below = within.join(entry.file_name());
        let kind = entry.file_type().map_err(HubError::file(&here))?;
        if kind.is_dir() {
            files_below(folder, &below, found)?;
        } else if entry.path().is_file() {
            found.push(below);
        }
    }
    Ok(())
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
    fn a_folder_gets_a_record_once_and_loses_the_files_of_it() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("model");
        fs::create_dir_all(folder.join("1_Pooling")).unwrap();
        for (name, text) in [
            ("config.json", "{}"),
            ("1_Pooling/config.json", "{}"),
            (".msc", ""),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        let lock = Lock::of_folder(&folder).unwrap();
        let paths: Vec<_> = lock
            .files
            .iter()
            .map(|file| file.path.to_str().unwrap())
            .collect();
        assert_eq!(paths, ["1_Pooling/config.json", "config.json"]);
        assert!(verify(&folder, &lock).all(|one| one.unwrap().1 == Verdict::Right));
        let error = Lock::of_folder(&folder).unwrap_err().to_string();
        assert!(error.contains("verify"), "{error}");
        fs::write(folder.join("mine.txt"), "").unwrap();
        // A hidden one, and that.
        assert_eq!(lock.remove(&folder).unwrap(), 2);
        let left: Vec<_> = folder
            .read_dir()
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        fs::remove_file(folder.join("mine.txt")).unwrap();
        fs::remove_file(folder.join(".msc")).unwrap();
        assert_eq!(lock.remove(&folder).unwrap(), 0);
        assert!(!folder.exists());
    }

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

    #[test]
    fn an_onnx_model_of_other_weights_is_out_of_date() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("onnx")).unwrap();
        for name in ["onnx/model.onnx", "onnx/fetched.onnx", "model.safetensors"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let lock = |sha256: &str| Lock {
            source: String::new(),
            endpoint: String::new(),
            revision: String::new(),
            commit: String::new(),
            fetched: 0,
            files: ["onnx/fetched.onnx", "model.safetensors"]
                .map(|path| Locked {
                    path: path.into(),
                    size: 0,
                    sha256: sha256.into(),
                })
                .into(),
        };
        let now = lock("b");
        assert_eq!(now.out_of_date(None, folder.path()), Vec::<PathBuf>::new());
        assert_eq!(
            now.out_of_date(Some(&lock("b")), folder.path()),
            Vec::<PathBuf>::new()
        );
        let stale = now.out_of_date(Some(&lock("a")), folder.path());
        assert_eq!(stale, [PathBuf::from("onnx/model.onnx")]);
    }

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
