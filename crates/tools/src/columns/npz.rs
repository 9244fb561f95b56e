//! `NumPy`'s npz: an array of each kind, rows of unequal length back to back with the offsets of their ends.
//!
//! With N texts of D dimensions: `tokens` and `tokens_full` int64 (N); `embedding` float32 (N, D); `sparse_offsets` int64
//! (N + 1), `sparse_indices` int64 and `sparse_values` float32 (all weights), which is what scipy's `csr_matrix` takes;
//! `colbert_offsets` int64 (N + 1), `colbert_embedding` float32 (all token vectors, D).
mod array;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use embedgate_core::Outputs;
use embedgate_request::Embedding;
use zip::ZipWriter;

use self::array::Array;

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
