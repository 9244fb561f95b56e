//! The forward pass of a BERT-like encoder over packed sequences: there is no padding of rows.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

mod inputs;
mod layer;
pub(crate) mod workspace;

use std::sync::Arc;

use embedgate_core::{EncoderConfig, TokenBatch, encoder::Table};

use self::{
    layer::{Layer, Layers},
    workspace::Workspace,
};
use crate::{
    calls::{
        Call,
        operands::{Attention, Embedding, Norm, RowShape, Tables},
    },
    device::{Kernel, Stream},
    error::DriverError,
    kernels::Loaded,
    linear::STEP,
    load::{LoadError, Loader, head_layout::HeadLayout},
    products::{Products, Then},
};

/// The weights of an encoder on a device, and its kernels. Workers share it: each has a [`Workspace`] of its own.
#[derive(Debug)]
pub(crate) struct Encoder {
    config: EncoderConfig,
    heads: HeadLayout,
    /// Numbers of a row: the model's width, and zeros.
    stride: usize,
    embedding: Embedding,
    layers: Vec<Layer>,
    plain: Arc<Products>,
    embed_norm: Kernel,
    add_norm: Kernel,
    attention: Loaded<1>,
    first_rows: Kernel,
}

/// The rows of the last layer that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenSelection {
    All,
    /// Each sequence's first, back to back.
    First,
}

impl Encoder {
    /// Reads the weights onto the device.
    pub(crate) fn load(config: &EncoderConfig, loader: &Loader<'_>) -> Result<Self, LoadError> {
        let (width, kernels) = (config.hidden_size, loader.kernels);
        let bert = config.bert_like().map_err(|thing| {
            LoadError::Unfit(format!(
                "the cuda backend does not run models of type {} yet: they have {thing}; type = \"cpu\" runs them",
                config.model_type
            ))
        })?;
        let stride = width.next_multiple_of(STEP);
        let heads = HeadLayout::of(config)?;
        // The narrowest that a row fits into.
        let rows = [256, 1024, 4096].into_iter().find(|most| stride <= *most);
        let rows = rows.ok_or_else(|| {
            LoadError::Unfit(format!(
                "the model is {width} numbers wide, the cuda backend takes 4096 at most"
            ))
        })?;
        let activation = Then::of(config.feed_forward.activation).ok_or_else(|| {
            LoadError::Unfit(format!(
                "the cuda backend has no activation of models of type {}",
                config.model_type
            ))
        })?;
        let table = |table: &Table| loader.table(table, width);
        let segments = config.embeddings.segments.as_ref();
        let then = |then| Products::load(kernels, then);
        let layers = Layers {
            loader,
            heads,
            plain: then(Then::Nothing)?,
            activated: then(activation)?,
        };
        let attention = kernels.all(
            "attention",
            |k| k.constant("D") == heads.size_padded,
            ["BM"],
        )?;
        Ok(Self {
            heads,
            stride,
            embedding: Embedding {
                tables: Tables {
                    word: table(&config.embeddings.words)?,
                    position: table(&bert.positions.table)?,
                    // Without segments all tokens are of one, whose vector is zeros.
                    segment: match segments {
                        Some(segments) => table(segments)?,
                        None => loader.zeros([1, width])?,
                    },
                },
                norm: loader.norm(bert.norm)?,
            },
            layers: bert
                .layers
                .iter()
                .map(|layer| layers.load(layer))
                .collect::<Result<_, _>>()?,
            plain: layers.plain,
            embed_norm: kernels.one("embed_norm", |k| k.constant("BC") == rows)?,
            add_norm: kernels.one("add_norm", |k| k.constant("BC") == rows)?,
            // The largest tiles: keys and values are read once for more queries.
            attention: attention
                .into_iter()
                .max_by_key(|kernel| kernel.tile)
                .ok_or_else(|| LoadError::Unfit("there is no kernel of attention".into()))?,
            first_rows: kernels.one("first_rows", |_| true)?,
            config: config.clone(),
        })
    }

    /// The model's width.
    pub(crate) fn width(&self) -> usize {
        self.config.hidden_size
    }

    /// Numbers of a row on the device.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The kernels of products that nothing follows.
    pub(crate) fn plain(&self) -> &Arc<Products> {
        &self.plain
    }

    /// The widest row of a forward pass.
    pub(crate) fn widest(&self) -> usize {
        let of = |layer: &Layer| layer.wide().max(layer.qkv.outer());
        self.layers.first().map_or(self.stride, of)
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        let Tables {
            word,
            position,
            segment,
        } = &self.embedding.tables;
        word.bytes() + position.bytes() + segment.bytes() + layers
    }

    /// Begins to run the encoder, of which [`Workspace::hidden`] is the result.
    pub(crate) fn forward(
        &self,
        stream: &Stream,
        batch: &TokenBatch,
        selection: TokenSelection,
        workspace: &mut Workspace,
    ) -> Result<(), DriverError> {
        let tile = self.attention.tile[0];
        workspace.inputs.send(stream, batch, &self.config, tile)?;
        self.embed_tokens(stream, workspace)?;
        let mut rows = batch.n_tokens();
        for (i, layer) in self.layers.iter().enumerate() {
            layer
                .qkv
                .forward(stream, &workspace.x, &workspace.qkv, rows)?;
            self.attend(stream, workspace)?;
            let is_cut = selection == TokenSelection::First && i + 1 == self.layers.len();
            if is_cut {
                self.keep_first(stream, workspace)?;
                rows = batch.len();
            }
            let contexts = if is_cut {
                &workspace.qkv
            } else {
                &workspace.contexts
            };
            layer
                .out
                .forward(stream, contexts, &workspace.added, rows)?;
            self.add_norm(stream, workspace, &layer.attention_norm, rows)?;
            layer
                .up
                .forward(stream, &workspace.x, &workspace.wide, rows)?;
            layer
                .down
                .forward(stream, &workspace.wide, &workspace.added, rows)?;
            self.add_norm(stream, workspace, &layer.norm, rows)?;
        }
        Ok(())
    }

    fn row(&self) -> RowShape {
        RowShape {
            width: self.width(),
            stride: self.stride,
        }
    }

    fn embed_tokens(&self, stream: &Stream, workspace: &Workspace) -> Result<(), DriverError> {
        let (tokens, kernel) = (workspace.inputs.tokens(), &self.embed_norm);
        let call = Call { stream, kernel };
        call.embed_norm(tokens, &self.embedding, &workspace.x, self.row())
    }

    fn attend(&self, stream: &Stream, workspace: &Workspace) -> Result<(), DriverError> {
        let (inputs, kernel) = (&workspace.inputs, &self.attention.kernel);
        let attention = Attention {
            heads: self.heads.n_padded,
            head_size: self.heads.size_padded,
            n_blocks: inputs.n_blocks,
            scale: self.config.attention.scale,
        };
        let buffers = [&workspace.qkv, &workspace.contexts];
        Call { stream, kernel }.attention(buffers, inputs.sequences(), inputs.blocks(), attention)
    }

    /// Leaves each sequence's first row, of `x` and of what was attended, which is where queries were: nobody reads other
    /// rows from here on.
    fn keep_first(&self, stream: &Stream, workspace: &mut Workspace) -> Result<(), DriverError> {
        let (kernel, sequences) = (&self.first_rows, workspace.sequences());
        let call = Call { stream, kernel };
        call.first_rows([&workspace.x, &workspace.sums], sequences, self.stride)?;
        let heads = self.heads.width();
        call.first_rows([&workspace.contexts, &workspace.qkv], sequences, heads)?;
        std::mem::swap(&mut workspace.x, &mut workspace.sums);
        Ok(())
    }

    /// `x = LayerNorm(x + added)`.
    fn add_norm(
        &self,
        stream: &Stream,
        workspace: &mut Workspace,
        norm: &Norm,
        rows: usize,
    ) -> Result<(), DriverError> {
        let kernel = &self.add_norm;
        let Workspace { x, added, sums, .. } = &*workspace;
        Call { stream, kernel }.add_norm([x, added, sums], norm, rows, self.row())?;
        std::mem::swap(&mut workspace.x, &mut workspace.sums);
        Ok(())
    }
}
