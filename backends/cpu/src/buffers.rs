//! The numbers of a forward pass, in memory that a worker keeps from batch to batch.

pub(crate) mod rounding;

use std::ops::Range;

use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

use crate::{linear::Target, memory::resize, precision::Precision, vector::Rounded};

/// Rows go to the threads in blocks of this many.
pub(crate) const ROWS_AT_ONCE: usize = 8;

/// The results of products and attention: rows of one width, in f32 or bfloat16.
pub(crate) struct Activations {
    width: usize,
    numbers: Numbers,
}

enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Activations {
    /// In f32, or in bfloat16 for any other precision.
    pub(crate) fn new(width: usize, precision: Precision) -> Self {
        let numbers = match precision {
            Precision::F32 => Numbers::F32(Vec::new()),
            Precision::Bf16 | Precision::Int8 => Numbers::Bf16(Vec::new()),
        };
        Self { width, numbers }
    }

    /// Makes room for so many rows, without changing those that are there. Rows that are new are zeros.
    pub(crate) fn resize(&mut self, rows: usize) {
        let n = rows * self.width;
        match &mut self.numbers {
            Numbers::F32(floats) => resize(floats, n),
            Numbers::Bf16(halves) => resize(halves, n),
        }
    }

    /// Makes rows zeros: nobody wrote them, and what is left of an earlier batch may be no number.
    pub(crate) fn clear(&mut self, rows: Range<usize>) {
        let range = numbers_of(rows, self.width);
        match &mut self.numbers {
            Numbers::F32(floats) => floats[range].fill(0.0),
            Numbers::Bf16(halves) => halves[range].fill(bf16::ZERO),
        }
    }

    /// Runs something for each of these rows, some rows at a time on each thread, with the row's number and scratch memory of
    /// `n` numbers.
    pub(crate) fn for_each_row(
        &mut self,
        rows: Range<usize>,
        n: usize,
        each: &(impl OnRow + Sync),
    ) {
        let (width, first) = (self.width, rows.start);
        let range = numbers_of(rows, width);
        match &mut self.numbers {
            Numbers::F32(floats) => on_rows(&mut floats[range], [width, n, first], each),
            Numbers::Bf16(halves) => on_rows(&mut halves[range], [width, n, first], each),
        }
    }

    /// Rows to be written by a product.
    pub(crate) fn target(&mut self, rows: Range<usize>) -> Target<'_> {
        let range = numbers_of(rows, self.width);
        match &mut self.numbers {
            Numbers::F32(floats) => Target::F32(&mut floats[range]),
            Numbers::Bf16(halves) => Target::Bf16(&mut halves[range]),
        }
    }
}

/// Queries, keys and values, and where their context vectors go: both of one format.
pub(crate) enum ToAttend<'a> {
    F32(&'a [f32], &'a mut [f32]),
    Bf16(&'a [bf16], &'a mut [bf16]),
}

impl<'a> ToAttend<'a> {
    /// # Panics
    /// When the formats differ.
    pub(crate) fn new(qkv: &'a Activations, contexts: &'a mut Activations) -> Self {
        match (&qkv.numbers, &mut contexts.numbers) {
            (Numbers::F32(qkv), Numbers::F32(contexts)) => Self::F32(qkv, contexts),
            (Numbers::Bf16(qkv), Numbers::Bf16(contexts)) => Self::Bf16(qkv, contexts),
            _ => panic!("activations are of one format"),
        }
    }
}

/// An operation on each row of some activations.
pub(crate) trait OnRow {
    /// Changes the row of this number; `spare` is scratch memory.
    fn run<T: Rounded>(&self, number: usize, row: &mut [T], spare: &mut [f32]);
}

fn on_rows<T: Rounded>(
    numbers: &mut [T],
    [width, n_spare, first]: [usize; 3],
    each: &(impl OnRow + Sync),
) {
    let blocks = numbers.par_chunks_mut(ROWS_AT_ONCE * width).enumerate();
    blocks.for_each_init(
        || vec![0.0; n_spare],
        |spare, (block, rows)| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                each.run(first + block * ROWS_AT_ONCE + i, row, spare);
            }
        },
    );
}

/// The place of rows among the numbers of a buffer.
fn numbers_of(rows: Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}
