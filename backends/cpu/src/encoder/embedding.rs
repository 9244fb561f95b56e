//! The vectors of tokens: what is looked up and added before the first layer.

use embedgate_core::{EncoderConfig, TokenBatch, encoder::Embeddings};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use crate::{
    linear::{Linear, Operand, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::OneDnnError,
    table::Table,
    vector::Norm,
};

/// The tables of tokens, positions and segments, and what follows them.
pub(super) struct Embedding {
    /// Numbers of a vector.
    pub(super) width: usize,
    word: Table,
    position: Option<Table>,
    segment: Option<Vec<f32>>,
    pub(super) norm: Option<Norm>,
    /// From this width to the encoder's.
    projection: Option<Linear>,
}

impl Embedding {
    /// Reads the tables.
    pub(super) fn load(config: &EncoderConfig, loader: &Loader<'_>) -> Result<Self, LoadError> {
        let Embeddings {
            words,
            width,
            factor,
            positions,
            segments,
            norm,
            projection,
        } = &config.embeddings;
        let positions = positions.as_ref();
        let segments = segments.as_ref();
        let projection = projection.as_ref();
        Ok(Self {
            width: *width,
            word: loader.table(words, *width, *factor)?,
            position: positions
                .map(|positions| loader.table(&positions.table, *width, 1.0))
                .transpose()?,
            segment: segments
                .map(|table| loader.numbers(&table.name, &[table.rows, *width]))
                .transpose()?,
            norm: loader.norm_if_any(norm.as_ref())?,
            projection: projection
                .map(|projection| loader.exact(projection))
                .transpose()?,
        })
    }

    /// Returns the size of the tables, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.word.bytes() + self.position.as_ref().map_or(0, Table::bytes)
    }

    /// Returns true when vectors are of another width than the encoder's.
    pub(super) fn is_projected(&self) -> bool {
        self.projection.is_some()
    }

    /// Looks up and adds the embeddings of each token, which are not normalized yet.
    pub(super) fn look_up(&self, batch: &TokenBatch, config: &EncoderConfig, x: &mut [f32]) {
        let width = self.width;
        let positions: Vec<u32> = batch
            .iter()
            .flat_map(|s| config.position_ids(s.ids))
            .collect();
        let n_tokens = positions.len();
        let (tokens, padding) = x.split_at_mut(n_tokens * width);
        padding.fill(0.0);
        let add = |x: &mut [f32], row: &[f32]| {
            x.iter_mut().zip(row).for_each(|(x, y)| *x += y);
        };
        let rows = tokens.par_chunks_mut(width).enumerate();
        rows.with_min_len(ROW_STEP).for_each_init(
            || vec![0.0; width],
            |row, (i, x)| {
                self.word.read(batch.ids()[i] as usize, x);
                if let Some(table) = &self.position {
                    table.read(positions[i] as usize, row);
                    add(x, row);
                }
                if let Some(table) = &self.segment {
                    let segment = batch.type_ids()[i] as usize;
                    add(x, &table[segment * width..(segment + 1) * width]);
                }
            },
        );
    }

    /// Brings normalized vectors to the encoder's width.
    pub(super) fn project(&self, embedded: &[f32], x: &mut [f32]) -> Result<(), OneDnnError> {
        match &self.projection {
            Some(projection) => projection.forward(Operand::F32(embedded), Target::F32(x)),
            None => Ok(()),
        }
    }
}
