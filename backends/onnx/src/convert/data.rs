//! The file of large tensors, written front to back.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
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
    /// Creates the file, in place of one that was there.
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

    /// Its name, by which the model file refers to it.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Appends numbers, as bytes, at the next page; returns where they lie.
    pub(super) fn append<const N: usize>(
        &mut self,
        numbers: impl Iterator<Item = [u8; N]>,
    ) -> io::Result<Range<u64>> {
        let start = self.length.next_multiple_of(PAGE);
        for _ in self.length..start {
            self.file.write_all(&[0])?;
        }
        self.length = start;
        for number in numbers {
            self.file.write_all(&number)?;
            self.length += N as u64;
        }
        Ok(start..self.length)
    }

    /// Flushes the file to the disk.
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
