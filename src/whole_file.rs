//! Writes files that appear under their names when they are whole: readers find the file of before, or the new one.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::NamedTempFile;

/// Returns the folder of a file.
pub(crate) fn folder(path: &Path) -> &Path {
    let parent = path.parent();
    let named = parent.filter(|parent| !parent.as_os_str().is_empty());
    named.unwrap_or(Path::new("."))
}

/// The mode of any new file, from which the process's mask takes.
pub(crate) const NEW: u32 = 0o666;

/// Begins a file of this mode in this folder, which goes away unless it is given a name.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn begin(folder: &Path, mode: u32) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(".embedgate-")
        .permissions(Permissions::from_mode(mode));
    builder.tempfile_in(folder)
}

/// Writes a file in the place of the one before, if there is one. It is not synced: a power cut can leave it empty.
///
/// # Errors
/// When it cannot be written; the file of before is left as it is.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = begin(folder(path), NEW)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for text in ["a longer text", "b"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // What cannot get its name goes away.
        let taken = dir.path().join("folder");
        fs::create_dir(&taken).unwrap();
        assert!(write(&taken, b"c").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(folder(Path::new("name")), Path::new("."));
    }
}
