//! The file of large tensors, written front to back.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::ConvertError;

/// Tensors in the data file start at a page, so that they can be mapped.
const PAGE: u64 = 4096;

/// The file of large tensors, written front to back.
pub(super) struct DataFile {
    pub(super) path: PathBuf,
    file: BufWriter<File>,
    length: u64,
}

impl DataFile {
    pub(super) fn create(path: &Path) -> Result<Self, ConvertError> {
        let file = File::create(path).map_err(|source| ConvertError::Write {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            length: 0,
        })
    }

    /// Appends numbers at the next page; returns where they start.
    pub(super) fn append(&mut self, values: &[f32]) -> io::Result<u64> {
        let start = self.length.next_multiple_of(PAGE);
        for _ in self.length..start {
            self.file.write_all(&[0])?;
        }
        for value in values {
            self.file.write_all(&value.to_le_bytes())?;
        }
        self.length = start + 4 * values.len() as u64;
        Ok(start)
    }

    pub(super) fn finish(self) -> Result<(), ConvertError> {
        let flushed = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all());
        flushed.map_err(|source| ConvertError::Write {
            path: self.path,
            source,
        })
    }
}
