//! The folder that is to hold a model: it can be exchanged as a whole.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::error::HubError;

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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
}
