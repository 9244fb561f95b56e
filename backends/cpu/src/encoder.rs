//! The forward pass of a BERT-like encoder over packed sequences: there is no padding but to a multiple of 16 rows.
//!
//! All but attention goes in steps of some rows, from the context vectors of a layer to the queries, keys and values of
//! the next: what is between those products takes little memory, and between two steps the caller can do something else.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

mod layer;
pub(crate) mod workspace;

use std::ops::Range;

use embedgate_core::{EncoderConfig, TokenBatch};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use self::{layer::Layer, workspace::Workspace};
use crate::{
    attention::{Attention, Packed, TokenSelection},
    buffers::ToAttend,
    halt::{Halt, Pause},
    linear::ROW_STEP,
    load::{LoadError, Loader},
    precision::{Precision, operands},
    table::Table,
    vector::Norm,
};

/// Rows of a step: as many as the products need to be fast on weights that come from memory.
pub const STEP_ROWS: usize = 1024;

/// The weights of an encoder. Workers share it: each has a [`Workspace`] of its own.
pub(crate) struct Encoder {
    config: EncoderConfig,
    precision: Precision,
    activations: Precision,
    word: Table,
    position: Table,
    segment: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    attention: Attention,
}

impl Encoder {
    /// Reads and packs the weights.
    pub(crate) fn load(config: &EncoderConfig, loader: &Loader<'_>) -> Result<Self, LoadError> {
        let width = config.hidden_size;
        let table = |name: &str, rows| {
            loader.table(&format!("embeddings.{name}_embeddings.weight"), rows, width)
        };
        let shape = [config.type_vocabulary_size, width];
        let layers = (0..config.n_layers).map(|i| Layer::load(config, loader, i));
        let (n_heads, head_size) = (config.n_heads, config.head_size());
        let attention = Attention::new(
            loader.library,
            operands(loader.activations),
            n_heads,
            head_size,
        );
        Ok(Self {
            word: table("word", config.vocabulary_size)?,
            position: table("position", config.max_position_embeddings)?,
            segment: loader.numbers("embeddings.token_type_embeddings.weight", &shape)?,
            norm: loader.norm("embeddings.LayerNorm", config)?,
            layers: layers.collect::<Result<_, _>>()?,
            attention,
            precision: loader.precision,
            activations: loader.activations,
            config: config.clone(),
        })
    }

    /// Numbers in a token's vector.
    pub(crate) fn width(&self) -> usize {
        self.config.hidden_size
    }

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        self.word.bytes() + self.position.bytes() + layers
    }

    /// Runs the encoder on the threads of the pool that it is called in. Returns the last hidden states, shape
    /// `(rows, hidden_size)`, of all tokens or of each sequence's first; rows that follow mean nothing.
    ///
    /// # Errors
    /// The error of the library, or the [`Halt`] that `pause` returns between two steps.
    pub(crate) fn forward<'a>(
        &self,
        batch: &TokenBatch,
        selection: TokenSelection,
        workspace: &'a mut Workspace,
        pause: &mut Pause<'_>,
    ) -> Result<&'a [f32], Halt> {
        let mut rows = batch.ids().len().next_multiple_of(ROW_STEP);
        let width = self.width();
        workspace.resize(rows, width);
        self.embed_tokens(batch, &mut workspace.x);
        let first = self.layers.first().expect("a model has layers");
        for step in steps(rows) {
            let Workspace {
                x, qkv, rounding, ..
            } = &mut *workspace;
            let x = &mut x[step.start * width..step.end * width];
            let normalized = rounding.normalize(&self.norm, x);
            first.qkv.forward(normalized, qkv.target(step))?;
            pause()?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(i + 1);
            let selection = if next.is_none() {
                selection
            } else {
                TokenSelection::All
            };
            rows = self.attend(batch, selection, workspace, pause)?;
            for step in steps(rows) {
                layer.finish(next, step, workspace)?;
                pause()?;
            }
        }
        Ok(&workspace.x[..rows * width])
    }

    /// Looks up and adds the embeddings of each token, which are not normalized yet.
    fn embed_tokens(&self, batch: &TokenBatch, x: &mut [f32]) {
        let width = self.config.hidden_size;
        let positions: Vec<u32> = batch
            .iter()
            .flat_map(|s| self.config.position_ids(s.ids))
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
                self.position.read(positions[i] as usize, row);
                add(x, row);
                let segment = batch.type_ids()[i] as usize;
                add(x, &self.segment[segment * width..(segment + 1) * width]);
            },
        );
    }

    /// The context vectors of all tokens, or of first tokens alone: then nobody reads other rows from here on, and they
    /// are left out. Returns how many rows there are.
    fn attend(
        &self,
        batch: &TokenBatch,
        selection: TokenSelection,
        workspace: &mut Workspace,
        pause: &mut Pause<'_>,
    ) -> Result<usize, Halt> {
        let n_queries = match selection {
            TokenSelection::All => batch.ids().len(),
            TokenSelection::First => {
                keep_first(batch, &mut workspace.x, self.width());
                batch.len()
            }
        };
        let Workspace {
            qkv,
            contexts,
            floats,
            halves,
            ..
        } = workspace;
        let offsets = batch.offsets();
        match ToAttend::new(qkv, contexts) {
            ToAttend::F32(qkv, contexts) => {
                let packed = Packed {
                    qkv,
                    offsets,
                    selection,
                };
                self.attention.attend(packed, contexts, floats, pause)?;
            }
            ToAttend::Bf16(qkv, contexts) => {
                let packed = Packed {
                    qkv,
                    offsets,
                    selection,
                };
                self.attention.attend(packed, contexts, halves, pause)?;
            }
        }
        let rows = n_queries.next_multiple_of(ROW_STEP);
        contexts.clear(n_queries..rows);
        Ok(rows)
    }
}

/// Leaves the rows of first tokens alone, back to back, padded with zeros.
fn keep_first(batch: &TokenBatch, x: &mut [f32], width: usize) {
    let n = batch.len();
    for (i, first) in batch.offsets()[..n].iter().enumerate() {
        x.copy_within(first * width..(first + 1) * width, i * width);
    }
    let rows = n.next_multiple_of(ROW_STEP);
    x[n * width..rows * width].fill(0.0);
}

/// All rows, some at once.
fn steps(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows)
        .step_by(STEP_ROWS)
        .map(move |first| first..rows.min(first + STEP_ROWS))
}
