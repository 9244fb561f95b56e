//! The operands of kernels, by what they mean.

use super::view::View;
use crate::device::Buffer;

/// Sequences of a batch as the device knows them: where they begin, and behind the last where it ends.
#[derive(Clone, Copy)]
pub(crate) struct Sequences<'a> {
    pub(crate) offsets: View<'a>,
    pub(crate) n: usize,
    /// Their tokens.
    pub(crate) n_tokens: usize,
}

/// Width of rows, and numbers from one row to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowShape {
    pub(crate) width: usize,
    pub(crate) stride: usize,
}

/// A normalization of rows: weight and bias in f32, and what is added to the variance.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) weight: Buffer,
    pub(crate) bias: Buffer,
    pub(crate) eps: f32,
}

/// The tables that tokens are looked up in, in halves.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) word: Buffer,
    pub(crate) position: Buffer,
    pub(crate) segment: Buffer,
}

/// The step from tokens to rows: tables, whose rows are added, and the normalization of the sums.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub(crate) tables: Tables,
    pub(crate) norm: Norm,
}

/// The places of tokens in their tables.
#[derive(Clone, Copy)]
pub(crate) struct Tokens<'a> {
    pub(crate) ids: View<'a>,
    pub(crate) positions: View<'a>,
    pub(crate) segments: View<'a>,
    pub(crate) n: usize,
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) head_size: usize,
    /// Blocks of queries, of any head.
    pub(crate) n_blocks: usize,
    /// Factor of the products of queries and keys.
    pub(crate) scale: f32,
}
