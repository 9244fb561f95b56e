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

use embedgate_core::{HeadForm, HeadNames, HeadValue, Outputs, PerHead};
use embedgate_request::Embedding;
use zip::ZipWriter;

use self::array::Array;

/// An npz file in the making: arrays lie in files of their own until their lengths are known.
pub struct Npz {
    file: File,
    tokens: Array<i64>,
    tokens_full: Array<i64>,
    heads: PerHead<Arrays>,
}

/// The arrays of one head.
enum Arrays {
    Vectors(Array<f32>),
    Weights {
        offsets: Array<i64>,
        indices: Array<i64>,
        values: Array<f32>,
    },
    Rows {
        offsets: Array<i64>,
        rows: Array<f32>,
    },
}

impl Arrays {
    /// The arrays for results of a form; none for scores, which are of pairs.
    fn new(form: HeadForm, folder: &Path) -> anyhow::Result<Option<Self>> {
        Ok(Some(match form {
            HeadForm::Vector => Self::Vectors(Array::new(folder)?),
            HeadForm::Weights => Self::Weights {
                offsets: Array::of_offsets(folder)?,
                indices: Array::new(folder)?,
                values: Array::new(folder)?,
            },
            HeadForm::Rows { .. } => Self::Rows {
                offsets: Array::of_offsets(folder)?,
                rows: Array::new(folder)?,
            },
            HeadForm::Score => return Ok(None),
        }))
    }

    fn push(&mut self, value: &HeadValue) -> anyhow::Result<()> {
        match (self, value) {
            (Self::Vectors(array), HeadValue::Vector(vector)) => {
                array.width = vector.len();
                array.push(vector)
            }
            (
                Self::Weights {
                    offsets,
                    indices,
                    values,
                },
                HeadValue::Weights(sparse),
            ) => {
                let ids: Vec<i64> = sparse.indices.iter().map(|id| i64::from(*id)).collect();
                indices.push(&ids)?;
                values.push(&sparse.values)?;
                offsets.push(&[i64::try_from(values.n)?])
            }
            (Self::Rows { offsets, rows }, HeadValue::Rows(matrix)) => {
                rows.width = matrix.width;
                rows.push(&matrix.data)?;
                let end = rows.n / matrix.width.max(1);
                offsets.push(&[i64::try_from(end)?])
            }
            _ => Ok(()),
        }
    }

    fn write(self, zip: &mut ZipWriter<BufWriter<File>>, names: HeadNames) -> anyhow::Result<()> {
        let HeadNames { output, member, .. } = names;
        match self {
            Self::Vectors(array) => array.write_rows(zip, member),
            Self::Weights {
                offsets,
                indices,
                values,
            } => {
                offsets.write(zip, &format!("{output}_offsets"))?;
                indices.write(zip, &format!("{output}_indices"))?;
                values.write(zip, &format!("{output}_values"))
            }
            Self::Rows { offsets, rows } => {
                offsets.write(zip, &format!("{output}_offsets"))?;
                rows.write_rows(zip, member)
            }
        }
    }
}

impl Npz {
    /// Begins a file of what `outputs` has; what is not yet whole lies in `folder`.
    ///
    /// # Errors
    /// When the system gives no file there.
    pub fn new(file: File, folder: &Path, outputs: Outputs) -> anyhow::Result<Self> {
        let mut heads = PerHead::default();
        for head in outputs.iter() {
            if let Some(arrays) = Arrays::new(head.form(), folder)? {
                heads.set(head, arrays);
            }
        }
        Ok(Self {
            file,
            tokens: Array::new(folder)?,
            tokens_full: Array::new(folder)?,
            heads,
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
            for (head, arrays) in self.heads.iter_mut() {
                if let Some(value) = embedding.results.get(head) {
                    arrays.push(value)?;
                }
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
        for (head, arrays) in self.heads {
            if let Some(names) = head.names() {
                arrays.write(&mut zip, names)?;
            }
        }
        zip.finish()?.flush()?;
        Ok(())
    }
}
