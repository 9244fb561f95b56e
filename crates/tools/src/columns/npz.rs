//! `NumPy`'s npz: an array of each kind, rows of unequal length back to back with the offsets of their ends.
//!
//! With N texts of D dimensions: `tokens` and `tokens_full` int64 (N); `embedding` float32 (N, D); `sparse_offsets` int64
//! (N + 1), `sparse_indices` int64 and `sparse_values` float32 (all weights), which is what scipy's `csr_matrix` takes;
//! `colbert_offsets` int64 (N + 1), `colbert_embedding` float32 (all token vectors, D).

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, Write},
    marker::PhantomData,
    path::Path,
};

use embedgate_core::Outputs;
use embedgate_request::Embedding;
use npyz::{AutoSerialize, WriterBuilder};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// An npz file in the making: arrays lie in files of their own until their lengths are known.
pub struct Npz {
    file: File,
    tokens: Array<i64>,
    tokens_full: Array<i64>,
    dense: Option<Array<f32>>,
    sparse: Option<Sparse>,
    colbert: Option<Colbert>,
}

struct Sparse {
    offsets: Array<i64>,
    indices: Array<i64>,
    values: Array<f32>,
}

struct Colbert {
    offsets: Array<i64>,
    rows: Array<f32>,
}

impl Npz {
    /// Begins a file of what `outputs` has; what is not yet whole lies in `folder`.
    ///
    /// # Errors
    /// When the system gives no file there.
    pub fn new(file: File, folder: &Path, outputs: Outputs) -> anyhow::Result<Self> {
        let dense = match outputs.dense {
            true => Some(Array::new(folder)?),
            false => None,
        };
        let sparse = match outputs.sparse {
            true => Some(Sparse {
                offsets: Array::of_offsets(folder)?,
                indices: Array::new(folder)?,
                values: Array::new(folder)?,
            }),
            false => None,
        };
        let colbert = match outputs.multi_vector {
            true => Some(Colbert {
                offsets: Array::of_offsets(folder)?,
                rows: Array::new(folder)?,
            }),
            false => None,
        };
        Ok(Self {
            file,
            tokens: Array::new(folder)?,
            tokens_full: Array::new(folder)?,
            dense,
            sparse,
            colbert,
        })
    }

    /// Takes the results of the next texts.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, embeddings: &[Embedding]) -> anyhow::Result<()> {
        for embedding in embeddings {
            self.tokens.push(&[i64::try_from(embedding.n_tokens)?])?;
            let full = i64::try_from(embedding.n_tokens_full)?;
            self.tokens_full.push(&[full])?;
            if let (Some(array), Some(vector)) = (&mut self.dense, embedding.dense_numbers()) {
                array.width = vector.len();
                array.push(vector)?;
            }
            if let (Some(arrays), Some(sparse)) = (&mut self.sparse, &embedding.sparse) {
                let ids: Vec<i64> = sparse.indices.iter().map(|id| i64::from(*id)).collect();
                arrays.indices.push(&ids)?;
                arrays.values.push(&sparse.values)?;
                arrays.offsets.push(&[i64::try_from(arrays.values.n)?])?;
            }
            if let (Some(arrays), Some(matrix)) = (&mut self.colbert, &embedding.multi_vector) {
                arrays.rows.width = matrix.width;
                arrays.rows.push(&matrix.data)?;
                let end = arrays.rows.n / matrix.width.max(1);
                arrays.offsets.push(&[i64::try_from(end)?])?;
            }
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut zip = ZipWriter::new(BufWriter::new(self.file));
        self.tokens.write(&mut zip, "tokens")?;
        self.tokens_full.write(&mut zip, "tokens_full")?;
        if let Some(array) = self.dense {
            array.write_rows(&mut zip, "embedding")?;
        }
        if let Some(arrays) = self.sparse {
            arrays.offsets.write(&mut zip, "sparse_offsets")?;
            arrays.indices.write(&mut zip, "sparse_indices")?;
            arrays.values.write(&mut zip, "sparse_values")?;
        }
        if let Some(arrays) = self.colbert {
            arrays.offsets.write(&mut zip, "colbert_offsets")?;
            arrays.rows.write_rows(&mut zip, "colbert_embedding")?;
        }
        zip.finish()?.flush()?;
        Ok(())
    }
}

/// A number as it lies in a file, little-endian.
trait Number: AutoSerialize + Copy {
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

/// Numbers on their way, in a file without a name: there may be more of them than memory.
struct Array<T> {
    scratch: BufWriter<File>,
    n: usize,
    /// Numbers in a row.
    width: usize,
    of: PhantomData<T>,
}

impl Array<i64> {
    /// Ends of rows, the first of which begins at 0.
    fn of_offsets(folder: &Path) -> anyhow::Result<Self> {
        let mut offsets = Self::new(folder)?;
        offsets.push(&[0])?;
        Ok(offsets)
    }
}

impl<T: Number> Array<T> {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            scratch: BufWriter::new(tempfile::tempfile_in(folder)?),
            n: 0,
            width: 0,
            of: PhantomData,
        })
    }

    fn push(&mut self, numbers: &[T]) -> anyhow::Result<()> {
        for number in numbers {
            self.scratch.write_all(number.to_bytes().as_ref())?;
        }
        self.n += numbers.len();
        Ok(())
    }

    /// As one row.
    fn write(self, zip: &mut ZipWriter<BufWriter<File>>, name: &str) -> anyhow::Result<()> {
        let shape = [self.n as u64];
        self.write_as(zip, name, &shape)
    }

    /// As rows of its width.
    fn write_rows(self, zip: &mut ZipWriter<BufWriter<File>>, name: &str) -> anyhow::Result<()> {
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
