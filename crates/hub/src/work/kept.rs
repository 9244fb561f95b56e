//! Files that need not be fetched: they are there, and right.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Work;
use crate::{
    error::HubError,
    existing::{Caches, bring},
    hash::hash_file,
    listing::Entry,
    progress::Progress,
};

/// A file that need not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The hash of its bytes, in hex.
    pub(crate) sha256: String,
    pub(crate) place: Place,
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

impl Kept {
    /// Returns true when it is in the model's folder.
    pub(crate) fn is_in_target(&self) -> bool {
        self.place == Place::Target
    }

    /// Returns true when another program stored it.
    pub(crate) fn is_in_cache(&self) -> bool {
        matches!(self.place, Place::Cache(_))
    }
}

impl Work {
    /// The sha256 of each file that is there and right, and where it is.
    pub(crate) async fn kept(
        &self,
        model: &str,
        files: &[&Entry],
        caches: &Caches,
        progress: &dyn Progress,
    ) -> Result<Vec<Option<Kept>>, HubError> {
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
                let kept = |sha256, place| Some(Kept { sha256, place });
                if let Some(sha256) = right(&in_tree) {
                    return kept(sha256, Place::Tree);
                }
                if let Some(sha256) = right(&in_target) {
                    return kept(sha256, Place::Target);
                }
                of_caches
                    .into_iter()
                    .find_map(|path| kept(right(&path)?, Place::Cache(path)))
            });
            let found = looking.await.unwrap_or(None);
            if found.is_some() {
                progress.came(number, file.size);
            }
            kept.push(found);
        }
        Ok(kept)
    }

    /// Refuses a folder that somebody else filled, where a file of it would be lost, or taken for one of the model.
    pub(crate) fn refuse_theirs(
        &self,
        files: &[&Entry],
        kept: &[Option<Kept>],
    ) -> Result<(), HubError> {
        let in_target = |path: &str| self.target.join(path).symlink_metadata().is_ok();
        let mut others = files.iter().zip(kept).filter(|(file, kept)| {
            let is_right = kept.as_ref().is_some_and(Kept::is_in_target);
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
    pub(crate) fn needs(&self, files: &[&Entry], kept: &[Option<Kept>]) -> u64 {
        let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
        let here = device(&self.folder);
        let is_written = |kept: &Option<Kept>| match kept.as_ref().map(|kept| &kept.place) {
            None => true,
            Some(Place::Cache(path)) => device(path) != here,
            Some(Place::Target | Place::Tree) => false,
        };
        let written = files.iter().zip(kept).filter(|(_, kept)| is_written(kept));
        written.fold(0, |sum, (file, _)| sum.saturating_add(file.size))
    }

    /// Brings what is right in a cache into the tree. What cannot be brought is fetched.
    pub(crate) async fn bring(
        &self,
        files: &[&Entry],
        mut kept: Vec<Option<Kept>>,
    ) -> Vec<Option<Kept>> {
        for (file, kept) in files.iter().zip(&mut kept) {
            let Some(Kept {
                place: Place::Cache(from),
                ..
            }) = kept
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
                *kept = None;
            }
        }
        kept
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::hash::Check;

    pub(in super::super) fn entry(path: &str) -> Entry {
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
        let refused = |kept: Option<Kept>| work.refuse_theirs(&[&config], &[kept]);
        assert!(refused(None).is_ok(), "nothing is there");
        fs::write(target.join("config.json"), "mine").unwrap();
        assert!(
            refused(Some(Kept {
                sha256: String::new(),
                place: Place::Target
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
