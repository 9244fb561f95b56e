//! The forward pass of a BERT-like encoder over packed sequences: there is no padding of rows.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

use std::sync::Arc;

use embedgate_core::{EncoderConfig, TokenBatch};

use crate::{
    calls::{Attention, Call, Norm, RowShape, Sequences, Tables, Tokens, View},
    device::{Buffer, Device, Kernel, Stream},
    error::DriverError,
    kernels::{Kernels, Loaded},
    linear::{Linear, Products, STEP, Then},
    load::{HeadLayout, LoadError, Loader},
};

/// The weights of an encoder on a device, and its kernels. Workers share it: each has a [`Workspace`] of its own.
#[derive(Debug)]
pub(crate) struct Encoder {
    config: EncoderConfig,
    heads: HeadLayout,
    /// Numbers of a row: the model's width, and zeros.
    stride: usize,
    tables: Tables,
    norm: Norm,
    layers: Vec<Layer>,
    plain: Arc<Products>,
    embed_norm: Kernel,
    add_norm: Kernel,
    attention: Loaded<1>,
    first_rows: Kernel,
}

#[derive(Debug)]
struct Layer {
    qkv: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// Which rows of the last layer are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Each sequence's first, back to back.
    First,
}

/// Facts of a batch that the host sends to the device: ids, positions and segments of tokens, where sequences begin, and blocks of attention.
#[derive(Debug)]
struct Inputs {
    host: Vec<i32>,
    device: Buffer,
    n_tokens: usize,
    n_sequences: usize,
    n_blocks: usize,
}

/// The memory of a forward pass, all of which is there from the load on.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The most tokens, and therefore sequences, of a batch.
    pub(crate) most_tokens: usize,
    inputs: Inputs,
    /// Rows that layers add to, and those that they add: they change places.
    x: Buffer,
    sums: Buffer,
    added: Buffer,
    qkv: Buffer,
    contexts: Buffer,
    wide: Buffer,
}

impl Workspace {
    /// Memory for batches of so many tokens.
    pub(crate) fn new(
        encoder: &Encoder,
        device: &Arc<Device>,
        most_tokens: usize,
    ) -> Result<Self, DriverError> {
        let rows = |width: usize| Buffer::new(device, most_tokens * width * 2);
        // Tokens have three numbers; there are no more sequences than tokens, and no more blocks than both.
        let n_inputs = 3 * most_tokens + (most_tokens + 1) + 2 * (most_tokens + most_tokens);
        let layer = encoder.layers.first();
        let wide = layer.map_or(STEP, |layer| layer.up.outer());
        Ok(Self {
            most_tokens,
            inputs: Inputs {
                host: vec![0; n_inputs],
                device: Buffer::new(device, n_inputs * size_of::<i32>())?,
                n_tokens: 0,
                n_sequences: 0,
                n_blocks: 0,
            },
            x: rows(encoder.stride)?,
            sums: rows(encoder.stride)?,
            added: rows(encoder.stride)?,
            qkv: rows(3 * encoder.heads.width())?,
            contexts: rows(encoder.heads.width())?,
            wide: rows(wide)?,
        })
    }

    /// The last hidden states of the last forward pass, of shape `(rows, stride)`: of all tokens, or of each sequence's first.
    pub(crate) fn hidden(&self) -> &Buffer {
        &self.x
    }

    /// The sequences of the last forward pass.
    pub(crate) fn sequences(&self) -> Sequences<'_> {
        let inputs = &self.inputs;
        Sequences {
            offsets: inputs.at(3 * inputs.n_tokens),
            n: inputs.n_sequences,
            n_tokens: inputs.n_tokens,
        }
    }
}

impl Inputs {
    /// The numbers that are sent, from number `i` on.
    fn at(&self, i: usize) -> View<'_> {
        View::of_words(&self.device, i)
    }

    /// Writes a batch, and sends it. `tile`: queries of a block of attention.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "ids and places are below the sizes of models, which fit"
    )]
    fn send(
        &mut self,
        stream: &Stream,
        batch: &TokenBatch,
        config: &EncoderConfig,
        tile: usize,
    ) -> Result<(), DriverError> {
        let n = batch.n_tokens();
        let numbers = self.host.as_mut_slice();
        let (ids, rest) = numbers.split_at_mut(n);
        let (positions, rest) = rest.split_at_mut(n);
        let (segments, rest) = rest.split_at_mut(n);
        let (offsets, blocks) = rest.split_at_mut(batch.len() + 1);
        let put = |to: &mut [i32], from: &mut dyn Iterator<Item = u32>| {
            to.iter_mut().zip(from).for_each(|(to, x)| *to = x as i32);
        };
        put(ids, &mut batch.ids().iter().copied());
        put(segments, &mut batch.type_ids().iter().copied());
        put(
            positions,
            &mut batch.iter().flat_map(|s| config.position_ids(s.ids)),
        );
        put(offsets, &mut batch.offsets().iter().map(|x| *x as u32));
        // The longest first: their blocks take longest.
        let length = |i: usize| batch.offsets()[i + 1] - batch.offsets()[i];
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(length(*i)));
        let of = |i: usize| (0..length(i).div_ceil(tile)).map(move |block| [i, block]);
        let mut n_blocks = 0;
        for (to, pair) in blocks
            .chunks_exact_mut(2)
            .zip(order.into_iter().flat_map(of))
        {
            to.copy_from_slice(&pair.map(|x| x as i32));
            n_blocks += 1;
        }
        (self.n_tokens, self.n_sequences, self.n_blocks) = (n, batch.len(), n_blocks);
        let sent = 3 * n + batch.len() + 1 + 2 * n_blocks;
        stream.upload(&self.host[..sent], &self.device, 0)
    }
}

impl Encoder {
    pub(crate) fn load(
        config: &EncoderConfig,
        kernels: &Kernels<'_>,
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let width = config.hidden_size;
        let stride = width.next_multiple_of(STEP);
        let heads = HeadLayout::of(config)?;
        // The narrowest that a row fits into.
        let rows = [256, 1024, 4096].into_iter().find(|most| stride <= *most);
        let rows = rows.ok_or_else(|| {
            LoadError::Unfit(format!(
                "the model is {width} numbers wide, the cuda backend takes 4096 at most"
            ))
        })?;
        let table = |name: &str, rows| {
            loader.table(&format!("embeddings.{name}_embeddings.weight"), rows, width)
        };
        let then = |then| Products::load(kernels, then);
        let products = [then(Then::Nothing)?, then(config.activation.into())?];
        let layers = (0..config.n_layers).map(|i| Layer::load(config, loader, heads, &products, i));
        let attention = kernels.all(
            "attention",
            |k| k.constant("D") == heads.size_padded,
            ["BM"],
        )?;
        Ok(Self {
            heads,
            stride,
            tables: Tables {
                word: table("word", config.vocabulary_size)?,
                position: table("position", config.max_position_embeddings)?,
                segment: table("token_type", config.type_vocabulary_size)?,
            },
            norm: load_norm(loader, config, "embeddings.LayerNorm")?,
            layers: layers.collect::<Result<_, _>>()?,
            plain: Arc::clone(&products[0]),
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
        let of = |layer: &Layer| layer.up.outer().max(layer.qkv.outer());
        self.layers.first().map_or(self.stride, of)
    }

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        let of_layer = |layer: &Layer| {
            let all = [&layer.qkv, &layer.out, &layer.up, &layer.down];
            all.into_iter().map(Linear::bytes).sum::<usize>()
        };
        let layers: usize = self.layers.iter().map(of_layer).sum();
        let Tables {
            word,
            position,
            segment,
        } = &self.tables;
        word.bytes() + position.bytes() + segment.bytes() + layers
    }

    /// Begins to run the encoder, of which [`Workspace::hidden`] is the result.
    pub(crate) fn forward(
        &self,
        stream: &Stream,
        batch: &TokenBatch,
        which: Which,
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
            let is_cut = which == Which::First && i + 1 == self.layers.len();
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
        let (inputs, kernel) = (&workspace.inputs, &self.embed_norm);
        let n = inputs.n_tokens;
        let tokens = Tokens {
            ids: inputs.at(0),
            positions: inputs.at(n),
            segments: inputs.at(2 * n),
            n,
        };
        let call = Call { stream, kernel };
        call.embed_norm(tokens, &self.tables, &self.norm, &workspace.x, self.row())
    }

    fn attend(&self, stream: &Stream, workspace: &Workspace) -> Result<(), DriverError> {
        let (inputs, kernel) = (&workspace.inputs, &self.attention.kernel);
        let blocks = inputs.at(3 * inputs.n_tokens + inputs.n_sequences + 1);
        let attention = Attention {
            heads: self.heads.n_padded,
            head_size: self.heads.size_padded,
            n_blocks: inputs.n_blocks,
            scale: 1.0 / (self.config.head_size() as f32).sqrt(),
        };
        let buffers = [&workspace.qkv, &workspace.contexts];
        Call { stream, kernel }.attention(buffers, workspace.sequences(), blocks, attention)
    }

    /// Leaves each sequence's first row, of `x` and of what was attended, which is where queries were: nobody reads other rows from here on.
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

fn load_norm(loader: &Loader<'_>, config: &EncoderConfig, name: &str) -> Result<Norm, LoadError> {
    let width = config.hidden_size;
    Ok(Norm {
        weight: loader.floats(&format!("{name}.weight"), width)?,
        bias: loader.floats(&format!("{name}.bias"), width)?,
        eps: config.layer_norm_eps,
    })
}

impl Layer {
    fn load(
        config: &EncoderConfig,
        loader: &Loader<'_>,
        heads: HeadLayout,
        [plain, activated]: &[Arc<Products>; 2],
        i: usize,
    ) -> Result<Self, LoadError> {
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        Ok(Self {
            qkv: loader.fused_qkv(i, width, heads, plain)?,
            out: loader.behind_attention(&at("attention.output.dense"), width, heads, plain)?,
            attention_norm: load_norm(loader, config, &at("attention.output.LayerNorm"))?,
            up: loader.linear(&at("intermediate.dense"), [ffn, width], activated)?,
            down: loader.linear(&at("output.dense"), [width, ffn], plain)?,
            norm: load_norm(loader, config, &at("output.LayerNorm"))?,
        })
    }
}
