//! Files that need not be fetched: they are there, and right.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::WorkFolder;
use crate::{
    error::HubError,
    existing::{Caches, bring},
    hash::hash_file,
    listing::ListedFile,
    progress::Progress,
};

/// A file that need not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresentFile {
    /// The hash of its bytes, in hex.
    pub(crate) sha256: String,
    pub(crate) location: FileLocation,
}

/// The location of a file that need not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileLocation {
    Target,
    /// The tree of an earlier pull that did not end.
    Tree,
    /// The path where another program stored the file.
    Cache(PathBuf),
}

impl PresentFile {
    /// Returns true when it is in the model's folder.
    pub(crate) fn is_in_target(&self) -> bool {
        self.location == FileLocation::Target
    }

    /// Returns true when another program stored it.
    pub(crate) fn is_in_cache(&self) -> bool {
        matches!(self.location, FileLocation::Cache(_))
    }
}

impl WorkFolder {
    /// The sha256 of each file that is there and right, and where it is.
    pub(crate) async fn present(
        &self,
        model: &str,
        files: &[&ListedFile],
        caches: &Caches,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<PresentFile>>, HubError> {
        let mut present = Vec::new();
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
                let present = |sha256, location| Some(PresentFile { sha256, location });
                if let Some(sha256) = right(&in_tree) {
                    return present(sha256, FileLocation::Tree);
                }
                if let Some(sha256) = right(&in_target) {
                    return present(sha256, FileLocation::Target);
                }
                of_caches
                    .into_iter()
                    .find_map(|path| present(right(&path)?, FileLocation::Cache(path)))
            });
            let found = looking.await.unwrap_or(None);
            if found.is_some() {
                progress.came(number, file.size);
            }
            present.push(found);
        }
        Ok(present)
    }

    /// Refuses a folder that somebody else filled, where a file of it would be lost, or taken for one of the model.
    pub(crate) fn refuse_theirs(
        &self,
        files: &[&ListedFile],
        present: &[Option<PresentFile>],
    ) -> Result<(), HubError> {
        let in_target = |path: &str| self.target.join(path).symlink_metadata().is_ok();
        let mut others = files.iter().zip(present).filter(|(file, present)| {
            let is_right = present.as_ref().is_some_and(PresentFile::is_in_target);
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

    /// Bytes that the disk needs room for: of files that are fetched, and of those that are copied from another disk.
    pub(crate) fn needs(&self, files: &[&ListedFile], present: &[Option<PresentFile>]) -> u64 {
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        let here = device(&self.folder);
        let is_written =
            |present: &Option<PresentFile>| match present.as_ref().map(|present| &present.location)
            {
                None => true,
                Some(FileLocation::Cache(path)) => device(path) != here,
                Some(FileLocation::Target | FileLocation::Tree) => false,
            };
        let written = files
            .iter()
            .zip(present)
            .filter(|(_, present)| is_written(present));
        written.fold(0, |sum, (file, _)| sum.saturating_add(file.size))
    }

    /// Brings what is right in a cache into the tree. What cannot be brought is fetched.
    pub(crate) async fn bring(
        &self,
        files: &[&ListedFile],
        mut present: Vec<Option<PresentFile>>,
    ) -> Vec<Option<PresentFile>> {
        for (file, present) in files.iter().zip(&mut present) {
            let Some(PresentFile {
                location: FileLocation::Cache(from),
                ..
            }) = present
            else {
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
                *present = None;
            }
        }
        present
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::hash::Check;

    pub(in super::super) fn entry(path: &str) -> ListedFile {
        ListedFile {
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
        let work = WorkFolder::begin(target.clone()).unwrap();
        let config = entry("config.json");
        let refused = |present: Option<PresentFile>| work.refuse_theirs(&[&config], &[present]);
        assert!(refused(None).is_ok(), "nothing is there");
        fs::write(target.join("config.json"), "mine").unwrap();
        assert!(
            refused(Some(PresentFile {
                sha256: String::new(),
                location: FileLocation::Target
            }))
            .is_ok(),
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
}
