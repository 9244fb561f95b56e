//! The forward pass of a BERT-like encoder over packed sequences: there is no padding but to a multiple of 16 rows.
//!
//! All but attention goes in steps of some rows, from the context vectors of a layer to the queries, keys and values of
//! the next: what is between those products takes little memory, and between two steps the caller can do something else.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

use std::{ops::Range, sync::Mutex};

use embedgate_core::{EncoderConfig, TokenBatch};
use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use crate::{
    attention::{Attention, Scratch, Which},
    buffers::{Activations, Rounding, ToAttend, resize},
    linear::{Linear, ROW_STEP, Target},
    load::{LoadError, Loader},
    onednn::{Format, OneDnnError},
    precision::{Precision, operands},
    table::Table,
    vector::Norm,
};

/// Rows of a step: as many as the products need to be fast on weights that come from memory.
pub const STEP_ROWS: usize = 1024;

/// The reasons why a forward pass ended early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The caller said so in a pause.
    Stopped,
    Failed(OneDnnError),
}

impl From<OneDnnError> for Halt {
    fn from(error: OneDnnError) -> Self {
        Self::Failed(error)
    }
}

/// Called between two steps.
pub(crate) type Pause<'a> = dyn FnMut() -> Result<(), Halt> + Send + 'a;

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
    qkv: Activations,
    contexts: Activations,
    /// The intermediate rows of one step.
    wide: Activations,
    rounding: Rounding,
    floats: Vec<Mutex<Scratch<f32>>>,
    halves: Vec<Mutex<Scratch<bf16>>>,
}

impl Workspace {
    pub(crate) fn new(encoder: &Encoder, threads: usize) -> Self {
        let EncoderConfig {
            hidden_size: width,
            intermediate_size: wide,
            ..
        } = encoder.config;
        let rows = |width| Activations::new(width, encoder.activations);
        Self {
            x: Vec::new(),
            qkv: rows(3 * width),
            contexts: rows(width),
            wide: rows(wide),
            rounding: Rounding::new(encoder.precision),
            floats: (0..threads).map(|_| Mutex::default()).collect(),
            halves: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    /// Makes room for so many rows.
    fn resize(&mut self, rows: usize, width: usize) {
        resize(&mut self.x, rows * width);
        self.qkv.resize(rows);
        self.contexts.resize(rows);
        self.wide.resize(rows.min(STEP_ROWS));
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
        let of_layer = |layer: &Layer| {
            let all = [&layer.qkv, &layer.out, &layer.up, &layer.down];
            all.into_iter().map(Linear::bytes).sum::<usize>()
        };
        let layers: usize = self.layers.iter().map(of_layer).sum();
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
        which: Which,
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
            let which = if next.is_none() { which } else { Which::All };
            rows = self.attend(batch, which, workspace, pause)?;
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
        which: Which,
        workspace: &mut Workspace,
        pause: &mut Pause<'_>,
    ) -> Result<usize, Halt> {
        let n_queries = match which {
            Which::All => batch.ids().len(),
            Which::First => {
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
                self.attention
                    .attend(qkv, offsets, which, contexts, floats, pause)?;
            }
            ToAttend::Bf16(qkv, contexts) => {
                self.attention
                    .attend(qkv, offsets, which, contexts, halves, pause)?;
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
            up: loader.linear(&up, [ffn, width], activation, operands(loader.activations))?,
            down: loader.linear(&at("output.dense"), [width, ffn], None, Format::F32)?,
            norm: loader.norm(&at("output.LayerNorm"), config)?,
        })
    }

    /// Computes the part of the layer after attention, for the rows of one step; then the next layer's queries, keys
    /// and values of these rows.
    fn finish(
        &self,
        next: Option<&Self>,
        step: Range<usize>,
        workspace: &mut Workspace,
    ) -> Result<(), OneDnnError> {
        let Workspace {
            x,
            qkv,
            contexts,
            wide,
            rounding,
            ..
        } = workspace;
        let (width, rows) = (self.norm.width(), 0..step.len());
        let x = &mut x[step.start * width..step.end * width];
        let contexts = rounding.operand(contexts, step.clone());
        self.out.forward(contexts, Target::Sum(x))?;
        let normalized = rounding.normalize(&self.attention_norm, x);
        self.up.forward(normalized, wide.target(rows.clone()))?;
        let wide = rounding.operand(wide, rows);
        self.down.forward(wide, Target::Sum(x))?;
        let normalized = rounding.normalize(&self.norm, x);
        if let Some(next) = next {
            next.qkv.forward(normalized, qkv.target(step))?;
        }
        Ok(())
    }
}
