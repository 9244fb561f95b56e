//! The files of a record's folder: those of the record, and others.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{LOCK_FILE, Lock};
use crate::error::HubError;

impl Lock {
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
}

/// The files of a folder and of those below it, relative to it. Links to folders are not followed, and what is no file (a pipe, a
/// device) is left out.
pub(super) fn files_below(
    folder: &Path,
    within: &Path,
    found: &mut Vec<PathBuf>,
) -> Result<(), HubError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Locked;

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
}
