//! The forward pass of an encoder over packed sequences, by its description: there is no padding but to a multiple of 16 rows.
//!
//! All but attention goes in steps of some rows, from the context vectors of a layer to the queries, keys and values of
//! the next: what is between those products takes little memory, and between two steps the caller can do something else.

mod around;
mod embedding;
mod experts;
mod layer;
pub(crate) mod workspace;

use std::{ops::Range, sync::Arc};

use embedgate_core::{
    EncoderConfig, TokenBatch, TokenSelection,
    encoder::{self, DistanceValues, Rotary},
};
use rayon::{iter::ParallelIterator, slice::ParallelSliceMut};

use self::{around::Around, embedding::Embedding, layer::Layer, workspace::Workspace};
use crate::{
    attention::{
        Attention, Packed,
        distances::{DistanceTable, LayerDistances},
    },
    buffers::{ROWS_AT_ONCE, ToAttend},
    halt::{Halt, Pause},
    linear::ROW_STEP,
    load::{LoadError, Loader},
    onednn::OneDnnError,
    precision::{Precision, operands},
    vector::Norm,
};

/// Rows of a step: as many as the products need to be fast on weights that come from memory.
pub const STEP_ROWS: usize = 1024;

/// The weights of an encoder. Workers share it: each has a [`Workspace`] of its own.
pub(crate) struct Encoder {
    config: EncoderConfig,
    precision: Precision,
    activations: Precision,
    embedding: Embedding,
    layers: Vec<Layer>,
    attention: Attention,
    final_norm: Option<Norm>,
    /// The rotations of its layers, each once.
    rotations: Vec<Arc<Rotary>>,
}

impl Encoder {
    /// Reads and packs the weights. Sequences have at most `longest` tokens.
    pub(crate) fn load(
        config: &EncoderConfig,
        longest: usize,
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let rotations = rotations(config);
        let distances = DistanceTable::load(config, loader)?;
        let layers = config.layers.iter().map(|layer| {
            let rotary = layer.rotary.as_ref();
            let number = rotary.and_then(|rotary| rotations.iter().position(|of| of == rotary));
            Layer::load(config, layer, (number, distances.as_ref()), loader)
        });
        let layers = layers.collect::<Result<_, _>>()?;
        let embedding = Embedding::load(config, loader)?;
        let bias = bias(config, longest, loader)?;
        let prefixes = config.layers.iter().map(encoder::Layer::prefix);
        loader.weights.check_read(prefixes)?;
        Ok(Self {
            embedding,
            layers,
            attention: Attention::new(
                loader.library,
                operands(loader.activations),
                (config.attention.clone(), longest),
                bias,
            ),
            final_norm: loader.norm_if_any(config.final_norm.as_ref())?,
            rotations,
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
        self.embedding.bytes() + layers
    }

    /// Runs the encoder on the threads of the pool that it is called in. Returns the last hidden states, shape
    /// `(rows, hidden_size)`, of the selected tokens; rows that follow mean nothing.
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
        workspace.resize(rows, self);
        let longest = batch.iter().map(|s| s.ids.len()).max().unwrap_or(0);
        workspace
            .angles
            .iter_mut()
            .for_each(|angles| angles.grow(longest));
        workspace.places.clear();
        workspace
            .places
            .extend(batch.iter().flat_map(|s| (0_u32..).take(s.ids.len())));
        let embedded = match self.embedding.is_projected() {
            true => &mut workspace.embedded,
            false => &mut workspace.x,
        };
        self.embedding.look_up(batch, &self.config, embedded);
        for step in steps(rows) {
            self.begin(step, workspace)?;
            pause()?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(i + 1);
            let selection = if next.is_none() {
                selection
            } else {
                TokenSelection::All
            };
            rows = self.attend(layer, batch, selection, (workspace, &mut *pause))?;
            for step in steps(rows) {
                layer.finish(next, step, workspace)?;
                pause()?;
            }
        }
        let hidden = &mut workspace.x[..rows * width];
        if let Some(norm) = &self.final_norm {
            // Nobody reads it rounded.
            let blocks = hidden.par_chunks_mut(ROWS_AT_ONCE * width);
            blocks.for_each(|x| norm.apply(x));
        }
        Ok(hidden)
    }

    /// Normalizes the embeddings of one step, and computes the first layer's queries, keys and values of these rows.
    fn begin(&self, step: Range<usize>, workspace: &mut Workspace) -> Result<(), OneDnnError> {
        let Workspace {
            x,
            embedded,
            qkv,
            rounding,
            ..
        } = &mut *workspace;
        let (embedding, width) = (&self.embedding, self.width());
        let first = self.layers.first().expect("a model has layers");
        let x = &mut x[step.start * width..step.end * width];
        let around = &first.around_attention;
        let read = match (&embedding.norm, around) {
            (norm, _) if embedding.is_projected() => {
                let rows = step.start * embedding.width..step.end * embedding.width;
                let embedded = &mut embedded[rows];
                if let Some(norm) = norm {
                    rounding.normalize(norm, embedded);
                }
                embedding.project(embedded, x)?;
                around.read(rounding, x, width)
            }
            // One pass over the rows: the first layer reads what is normalized.
            (Some(norm), Around::After(_) | Around::Twice { .. }) => rounding.normalize(norm, x),
            (norm, Around::Before { .. }) => {
                if let Some(norm) = norm {
                    rounding.normalize(norm, x);
                }
                around.read(rounding, x, width)
            }
            (None, Around::After(_) | Around::Twice { .. }) => around.read(rounding, x, width),
        };
        first.qkv.forward(read, qkv.target(step.clone()))?;
        first.prepare_queries(step, workspace);
        Ok(())
    }

    /// The context vectors of the selected tokens: nobody reads other rows from here on, and they are left out. Returns how
    /// many rows there are.
    fn attend(
        &self,
        layer: &Layer,
        batch: &TokenBatch,
        selection: TokenSelection,
        (workspace, pause): (&mut Workspace, &mut Pause<'_>),
    ) -> Result<usize, Halt> {
        let n_queries = match selection {
            TokenSelection::All => batch.ids().len(),
            TokenSelection::First | TokenSelection::Last => {
                keep_selected(batch, selection, &mut workspace.x, self.width());
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
        let (offsets, reach) = (batch.offsets(), layer.reach);
        match ToAttend::new(qkv, contexts) {
            ToAttend::F32(qkv, contexts) => {
                let packed = Packed {
                    qkv,
                    offsets,
                    selection,
                    reach,
                    distances: match &layer.distances {
                        Some(LayerDistances::F32(rows)) => Some(rows),
                        _ => None,
                    },
                };
                self.attention.attend(packed, contexts, floats, pause)?;
            }
            ToAttend::Bf16(qkv, contexts) => {
                let packed = Packed {
                    qkv,
                    offsets,
                    selection,
                    reach,
                    distances: match &layer.distances {
                        Some(LayerDistances::Bf16(rows)) => Some(rows),
                        _ => None,
                    },
                };
                self.attention.attend(packed, contexts, halves, pause)?;
            }
        }
        let rows = n_queries.next_multiple_of(ROW_STEP);
        contexts.clear(n_queries..rows);
        Ok(rows)
    }
}

/// The rotations of all layers, each once.
fn rotations(config: &EncoderConfig) -> Vec<Arc<Rotary>> {
    let mut all: Vec<Arc<Rotary>> = Vec::new();
    for rotary in config
        .layers
        .iter()
        .filter_map(|layer| layer.rotary.as_ref())
    {
        if !all.contains(rotary) {
            all.push(Arc::clone(rotary));
        }
    }
    all
}

/// The numbers that are added to scores, in bits, as the softmax takes powers of 2.
fn bias(
    config: &EncoderConfig,
    longest: usize,
    loader: &Loader<'_>,
) -> Result<Option<DistanceValues>, LoadError> {
    let Some(bias) = &config.attention.bias else {
        return Ok(None);
    };
    let read = |name: &str, shape: &[usize]| loader.numbers(name, shape);
    let mut values = bias.read(config.attention.n_heads, longest, read)?;
    let all = values.values.iter_mut();
    all.for_each(|x| *x *= std::f32::consts::LOG2_E);
    Ok(Some(values))
}

/// Leaves the rows of selected tokens alone, one of each sequence, back to back, padded with zeros.
fn keep_selected(batch: &TokenBatch, selection: TokenSelection, x: &mut [f32], width: usize) {
    let n = batch.len();
    for (i, range) in batch.ranges().enumerate() {
        let from = selection.of(range).start;
        x.copy_within(from * width..(from + 1) * width, i * width);
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
