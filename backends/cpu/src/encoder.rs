//! The forward pass of a BERT-like encoder over packed sequences: there is no padding but to a multiple of 16 rows.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

use std::sync::Mutex;

use embedgate_core::{EncoderConfig, Precision, TokenBatch};
use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use crate::{
    attention::{Attention, Scratch, Which},
    buffers::{Rows, resize},
    linear::{Linear, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::{Format, OneDnnError},
    table::Table,
    vector::Norm,
};

/// The weights of an encoder. Workers share it: each has a [`Workspace`] of its own.
pub(crate) struct Encoder {
    config: EncoderConfig,
    precision: Precision,
    between: Format,
    word: Table,
    position: Table,
    segment: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    attention: Attention,
}

struct Layer {
    qkv: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// The numbers of one forward pass, and scratch memory of each thread.
pub(crate) struct Workspace {
    /// Shape `(rows, width)`: what the layers add to.
    x: Vec<f32>,
    /// The same as products read it.
    hidden: Rows,
    qkv: Rows,
    contexts: Rows,
    wide: Rows,
    floats: Vec<Mutex<Scratch<f32>>>,
    halves: Vec<Mutex<Scratch<bf16>>>,
}

impl Workspace {
    pub(crate) fn new(encoder: &Encoder, threads: usize) -> Self {
        let width = encoder.config.hidden_size;
        // Attention reads what is between products as it is.
        let as_written = match encoder.between {
            Format::F32 => Precision::F32,
            Format::Bf16 | Format::S8 => Precision::Bf16,
        };
        let rows = |width, precision| Rows::new(width, precision, encoder.between);
        Self {
            x: Vec::new(),
            hidden: rows(width, encoder.precision),
            qkv: rows(3 * width, as_written),
            contexts: rows(width, encoder.precision),
            wide: rows(encoder.config.intermediate_size, encoder.precision),
            floats: (0..threads).map(|_| Mutex::default()).collect(),
            halves: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Makes room for so many rows.
    fn resize(&mut self, rows: usize, width: usize) {
        resize(&mut self.x, rows * width);
        for part in [&mut self.hidden, &mut self.contexts, &mut self.wide] {
            part.resize(rows);
        }
    }
}

impl Encoder {
    pub(crate) fn load(config: &EncoderConfig, loader: &Loader<'_>) -> Result<Self, LoadError> {
        let width = config.hidden_size;
        let table = |name: &str, rows| {
            loader.table(&format!("embeddings.{name}_embeddings.weight"), rows, width)
        };
        let shape = [config.type_vocabulary_size, width];
        let layers = (0..config.n_layers).map(|i| Layer::load(config, loader, i));
        let (n_heads, head_size) = (config.n_heads, config.head_size());
        let attention = Attention::new(loader.library, loader.between, n_heads, head_size);
        Ok(Self {
            word: table("word", config.vocabulary_size)?,
            position: table("position", config.max_position_embeddings)?,
            segment: loader.numbers("embeddings.token_type_embeddings.weight", &shape)?,
            norm: loader.norm("embeddings.LayerNorm", config)?,
            layers: layers.collect::<Result<_, _>>()?,
            attention,
            precision: loader.precision,
            between: loader.between,
            config: config.clone(),
        })
    }

    /// Numbers in a token's vector.
    pub(crate) fn width(&self) -> usize {
        self.config.hidden_size
    }

    /// What the weights take.
    pub(crate) fn bytes(&self) -> usize {
        let of_layer = |layer: &Layer| {
            let all = [&layer.qkv, &layer.out, &layer.up, &layer.down];
            all.into_iter().map(Linear::bytes).sum::<usize>()
        };
        let layers: usize = self.layers.iter().map(of_layer).sum();
        self.word.bytes() + self.position.bytes() + layers
    }

    /// Runs the encoder on the threads of the pool that it is called in. Returns the last hidden states, shape
    /// `(rows, hidden_size)`, of all tokens or of each sequence's first; rows that follow mean nothing.
    pub(crate) fn forward<'a>(
        &self,
        batch: &TokenBatch,
        which: Which,
        workspace: &'a mut Workspace,
    ) -> Result<&'a [f32], OneDnnError> {
        let n_tokens = batch.ids().len();
        let rows = n_tokens.next_multiple_of(ROW_STEP);
        workspace.resize(rows, self.config.hidden_size);
        workspace.qkv.resize(rows);
        self.embed_tokens(batch, workspace);
        let (last, others) = self.layers.split_last().expect("a model has layers");
        for layer in others {
            self.layer(layer, batch, Which::All, workspace)?;
        }
        self.layer(last, batch, which, workspace)?;
        Ok(&workspace.x)
    }

    fn embed_tokens(&self, batch: &TokenBatch, workspace: &mut Workspace) {
        let width = self.config.hidden_size;
        let positions: Vec<u32> = batch
            .iter()
            .flat_map(|s| self.config.position_ids(s.ids))
            .collect();
        let n_tokens = positions.len();
        let (tokens, padding) = workspace.x.split_at_mut(n_tokens * width);
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
        workspace.hidden.normalize(&self.norm, &mut workspace.x);
    }

    fn layer(
        &self,
        layer: &Layer,
        batch: &TokenBatch,
        which: Which,
        workspace: &mut Workspace,
    ) -> Result<(), OneDnnError> {
        layer
            .qkv
            .forward(workspace.hidden.operand(), workspace.qkv.target())?;
        if which == Which::First {
            self.keep_first(batch, workspace);
        }
        let Workspace {
            x,
            hidden,
            qkv,
            contexts,
            wide,
            floats,
            halves,
        } = workspace;
        let offsets = batch.offsets();
        match self.between {
            Format::F32 => {
                let contexts = contexts.floats();
                self.attention
                    .attend(qkv.floats(), offsets, which, contexts, floats)?;
            }
            Format::Bf16 | Format::S8 => {
                let contexts = contexts.halves();
                self.attention
                    .attend(qkv.halves(), offsets, which, contexts, halves)?;
            }
        }
        let n_queries = match which {
            Which::All => batch.ids().len(),
            Which::First => batch.len(),
        };
        contexts.clear_from(n_queries);
        contexts.prepare();
        layer.out.forward(contexts.operand(), Target::Sum(x))?;
        hidden.normalize(&layer.attention_norm, x);
        layer.up.forward(hidden.operand(), wide.target())?;
        wide.prepare();
        layer.down.forward(wide.operand(), Target::Sum(x))?;
        hidden.normalize(&layer.norm, x);
        Ok(())
    }

    /// Leaves the rows of first tokens alone: from here on nobody reads the others.
    fn keep_first(&self, batch: &TokenBatch, workspace: &mut Workspace) {
        let width = self.config.hidden_size;
        let n = batch.len();
        for (i, first) in batch.offsets()[..n].iter().enumerate() {
            workspace
                .x
                .copy_within(first * width..(first + 1) * width, i * width);
        }
        let rows = n.next_multiple_of(ROW_STEP);
        workspace.resize(rows, width);
        workspace.x[n * width..].fill(0.0);
    }
}

impl Layer {
    fn load(config: &EncoderConfig, loader: &Loader<'_>, i: usize) -> Result<Self, LoadError> {
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        let out = at("attention.output.dense");
        let (up, activation) = (at("intermediate.dense"), Some(config.activation));
        Ok(Self {
            qkv: loader.fused_qkv(config, i)?,
            out: loader.linear(&out, [width, width], None, Format::F32)?,
            attention_norm: loader.norm(&at("attention.output.LayerNorm"), config)?,
            up: loader.linear(&up, [ffn, width], activation, loader.between)?,
            down: loader.linear(&at("output.dense"), [width, ffn], None, Format::F32)?,
            norm: loader.norm(&at("output.LayerNorm"), config)?,
        })
    }
}
