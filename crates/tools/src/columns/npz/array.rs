//! An array in the making, in a file of its own until its length is known.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, Write},
    marker::PhantomData,
    path::Path,
};

use npyz::{AutoSerialize, WriterBuilder};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Numbers on their way, in a file without a name: there may be more of them than memory.
pub(super) struct Array<T> {
    scratch: BufWriter<File>,
    pub(super) n: usize,
    /// Numbers in a row.
    pub(super) width: usize,
    of: PhantomData<T>,
}

impl Array<i64> {
    /// Ends of rows, the first of which begins at 0.
    pub(super) fn of_offsets(folder: &Path) -> anyhow::Result<Self> {
        let mut offsets = Self::new(folder)?;
        offsets.push(&[0])?;
        Ok(offsets)
    }
}

impl<T: Number> Array<T> {
    /// Begins an array; its numbers lie in `folder`.
    pub(super) fn new(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            scratch: BufWriter::new(tempfile::tempfile_in(folder)?),
            n: 0,
            width: 0,
            of: PhantomData,
        })
    }

    /// Adds numbers.
    pub(super) fn push(&mut self, numbers: &[T]) -> anyhow::Result<()> {
        for number in numbers {
            self.scratch.write_all(number.to_bytes().as_ref())?;
        }
        self.n += numbers.len();
        Ok(())
    }

    /// As one row.
    pub(super) fn write(
        self,
        zip: &mut ZipWriter<BufWriter<File>>,
        name: &str,
    ) -> anyhow::Result<()> {
        let shape = [self.n as u64];
        self.write_as(zip, name, &shape)
    }

    /// As rows of its width.
    pub(super) fn write_rows(
        self,
        zip: &mut ZipWriter<BufWriter<File>>,
        name: &str,
    ) -> anyhow::Result<()> {
        let rows = self.n.checked_div(self.width).unwrap_or(0);
        let shape = [rows as u64, self.width as u64];
        self.write_as(zip, name, &shape)
    }

    fn write_as(
        self,
        zip: &mut ZipWriter<BufWriter<File>>,
        name: &str,
        shape: &[u64],
    ) -> anyhow::Result<()> {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        zip.start_file(format!("{name}.npy"), stored.large_file(true))?;
        let options = npyz::WriteOptions::<T>::new().default_dtype().shape(shape);
        let mut array = options.writer(zip).begin_nd()?;
        let mut file = self.scratch.into_inner()?;
        file.rewind()?;
        let mut file = BufReader::new(file);
        for _ in 0..self.n {
            let mut bytes = T::Bytes::default();
            file.read_exact(bytes.as_mut())?;
            array.push(&T::from_bytes(bytes))?;
        }
        Ok(array.finish()?)
    }
}

/// A number as it lies in a file, little-endian.
pub(super) trait Number: AutoSerialize + Copy {
    type Bytes: AsRef<[u8]> + AsMut<[u8]> + Default;
    fn to_bytes(self) -> Self::Bytes;
    fn from_bytes(bytes: Self::Bytes) -> Self;
}

impl Number for f32 {
    type Bytes = [u8; 4];

    fn to_bytes(self) -> Self::Bytes {
        self.to_le_bytes()
    }

    fn from_bytes(bytes: Self::Bytes) -> Self {
        Self::from_le_bytes(bytes)
    }
}

impl Number for i64 {
    type Bytes = [u8; 8];

    fn to_bytes(self) -> Self::Bytes {
        self.to_le_bytes()
    }

    fn from_bytes(bytes: Self::Bytes) -> Self {
        Self::from_le_bytes(bytes)
    }
}
