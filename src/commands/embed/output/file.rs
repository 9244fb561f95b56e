//! The file that an output becomes: it appears under its name when it is whole.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::NamedTempFile;

/// The folder of a file.
pub(super) fn folder(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// A file that goes away unless it is given a name.
pub(super) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // As any new file: the process's mask takes from it.
    builder
        .prefix(".embedgate-")
        .permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Gives a file that is whole its name.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> anyhow::Result<()> {
    file.as_file().sync_all()?;
    let named = file.persist(path);
    named.with_context(|| path.display().to_string())?;
    Ok(())
}
