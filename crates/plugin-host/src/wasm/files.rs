//! Reads files whose paths a configuration names.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::Context;

use super::inspect::{MOST_BYTES, NotAPlugin};

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

/// Reads a plugin's file, as far as it may be large.
pub(super) fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = open(path).with_context(|| format!("{shown} cannot be read"))?;
    let length = file.metadata()?.len();
    if length > MOST_BYTES {
        return Err(NotAPlugin::TooLarge(length)).with_context(|| shown.to_string());
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{shown} cannot be read"))?;
    Ok(bytes)
}
