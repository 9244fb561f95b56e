//! Launches each kernel with what its source says (`kernels/kernels.py`), after a look at its buffers: one that is too short stops
//! here, and not on the device.

#![expect(unsafe_code, reason = "kernels are given bare addresses")]

pub(crate) mod operands;
pub(crate) mod view;

use self::{
    operands::{Attention, Embedding, Norm, RowShape, Sequences, Tokens},
    view::View,
};
use crate::{
    device::{
        Argument::{self, Float, Int},
        Buffer, Kernel, Stream,
    },
    error::DriverError,
};

/// A kernel, about to be launched.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) kernel: &'a Kernel,
}

impl Call<'_> {
    /// # Safety
    /// The arguments must be what the kernel takes, and what it reads of them must lie within buffers.
    unsafe fn launch(self, grid: [usize; 2], arguments: &[Argument]) -> Result<(), DriverError> {
        // SAFETY: as for this.
        unsafe { self.stream.launch(self.kernel, grid, arguments) }
    }

    /// `to = act(from weight^T + bias)`, of `m` rows, `n` columns and `k` terms, which are multiples of the tile's.
    pub(crate) fn linear(
        self,
        [from, weight, bias, to]: [&Buffer; 4],
        [m, n, k]: [usize; 3],
        [tall, wide, deep]: [usize; 3],
    ) -> Result<(), DriverError> {
        assert!(
            n.is_multiple_of(wide) && k.is_multiple_of(deep),
            "whole tiles"
        );
        let arguments = [
            View::from(from).halves(m * k),
            View::from(weight).halves(n * k),
            View::from(bias).words(n),
            View::from(to).halves(m * n),
            int(m),
            int(n),
            int(k),
        ];
        // SAFETY: the buffers are as long.
        unsafe { self.launch([m.div_ceil(tall) * (n / wide), 1], &arguments) }
    }

    /// `to = softmax(Q K^T scale) V`. `blocks` names, for each block of queries, its sequence and its number there.
    pub(crate) fn attention(
        self,
        [qkv, to]: [&Buffer; 2],
        sequences: Sequences<'_>,
        blocks: View<'_>,
        attention: Attention,
    ) -> Result<(), DriverError> {
        let Attention {
            heads,
            head_size,
            n_blocks,
            scale,
        } = attention;
        let n = sequences.n_tokens * heads * head_size;
        let arguments = [
            View::from(qkv).halves(3 * n),
            View::from(to).halves(n),
            sequences.offsets.words(sequences.n + 1),
            blocks.words(2 * n_blocks),
            Float(scale * std::f32::consts::LOG2_E),
            int(heads),
        ];
        // SAFETY: the buffers are as long, and the host wrote offsets and blocks of these sequences.
        unsafe { self.launch([n_blocks, heads], &arguments) }
    }

    /// `to = LayerNorm(x + added)`, of `n` rows.
    pub(crate) fn add_norm(
        self,
        [x, added, to]: [&Buffer; 3],
        norm: &Norm,
        n: usize,
        row: RowShape,
    ) -> Result<(), DriverError> {
        let arguments = [
            View::from(x).halves(n * row.stride),
            View::from(added).halves(n * row.stride),
            View::from(&norm.weight).words(row.width),
            View::from(&norm.bias).words(row.width),
            View::from(to).halves(n * row.stride),
            Float(norm.eps),
            int(row.width),
            int(row.stride),
        ];
        // SAFETY: the buffers are as long.
        unsafe { self.launch([n, 1], &arguments) }
    }

    /// `to = LayerNorm(word[id] + position[p] + segment[s])`, of each token.
    pub(crate) fn embed_norm(
        self,
        tokens: Tokens<'_>,
        Embedding { tables, norm }: &Embedding,
        to: &Buffer,
        row: RowShape,
    ) -> Result<(), DriverError> {
        let n = tokens.n;
        let arguments = [
            tokens.ids.words(n),
            tokens.positions.words(n),
            tokens.segments.words(n),
            View::from(&tables.word).halves(row.width),
            View::from(&tables.position).halves(row.width),
            View::from(&tables.segment).halves(row.width),
            View::from(&norm.weight).words(row.width),
            View::from(&norm.bias).words(row.width),
            View::from(to).halves(n * row.stride),
            Float(norm.eps),
            int(row.width),
            int(row.stride),
        ];
        // SAFETY: the buffers are as long, and batches are checked: places are rows of their tables.
        unsafe { self.launch([n, 1], &arguments) }
    }

    /// `to` is the first row of each sequence.
    pub(crate) fn first_rows(
        self,
        [from, to]: [&Buffer; 2],
        sequences: Sequences<'_>,
        stride: usize,
    ) -> Result<(), DriverError> {
        const COLUMNS: usize = 256;
        let arguments = [
            View::from(from).halves(sequences.n_tokens * stride),
            sequences.offsets.words(sequences.n + 1),
            View::from(to).halves(sequences.n * stride),
            int(stride),
        ];
        // SAFETY: the buffers are as long, and the host wrote the offsets of these sequences.
        unsafe { self.launch([sequences.n, stride.div_ceil(COLUMNS)], &arguments) }
    }

    /// `to` is a row in f32 of the rows of each sequence.
    pub(crate) fn pool(
        self,
        [from, to]: [&Buffer; 2],
        sequences: Sequences<'_>,
        row: RowShape,
    ) -> Result<(), DriverError> {
        const COLUMNS: usize = 64;
        let arguments = [
            View::from(from).halves(sequences.n_tokens * row.stride),
            sequences.offsets.words(sequences.n + 1),
            View::from(to).words(sequences.n * row.width),
            int(row.width),
            int(row.stride),
        ];
        // SAFETY: as for the first rows.
        unsafe { self.launch([sequences.n, row.width.div_ceil(COLUMNS)], &arguments) }
    }

    /// `to` is a number in f32 of each of `n` rows: its product with `weight`, and `bias`.
    pub(crate) fn row_dot(
        self,
        [from, weight, to]: [&Buffer; 3],
        bias: f32,
        n: usize,
        row: RowShape,
    ) -> Result<(), DriverError> {
        let arguments = [
            View::from(from).halves(n * row.stride),
            View::from(weight).words(row.width),
            View::from(to).words(n),
            Float(bias),
            int(row.width),
            int(row.stride),
        ];
        // SAFETY: the buffers are as long.
        unsafe { self.launch([n, 1], &arguments) }
    }
}

/// Kernels number with 32 bits: sizes are checked when a model is loaded.
fn int(n: usize) -> Argument {
    Int(i32::try_from(n).unwrap_or(i32::MAX))
}
