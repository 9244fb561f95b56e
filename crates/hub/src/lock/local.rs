//! The record of a folder that no pull has fetched.

use std::path::Path;

use super::{LOCK_FILE, Lock, Locked, folder::files_below, now};
use crate::{
    error::HubError,
    hash::{Check, hash_file},
};

impl Lock {
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
        if !["config.json", "modules.json"]
            .iter()
            .any(|name| folder.join(name).is_file())
        {
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
}

fn is_hidden(path: &Path) -> bool {
    let mut parts = path.components();
    parts.any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lock::verify::{Verdict, verify};

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
}
