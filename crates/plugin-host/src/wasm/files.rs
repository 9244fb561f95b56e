//! Reads files whose paths a configuration names.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Opens a regular file. Of anything else, such as a pipe, reading might never end.
///
/// # Errors
/// The system's, or that it is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)
}

/// Reads a regular file of text.
///
/// # Errors
/// As [`open`]; and where it is no UTF-8.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
