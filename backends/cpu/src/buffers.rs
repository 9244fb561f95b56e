//! The numbers of a forward pass, in memory that a worker keeps from batch to batch.

use std::ops::Range;

use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use crate::{
    linear::{Operand, Target},
    precision::Precision,
    vector::{Norm, Rounded, quantize, round},
};

/// Rows go to the threads in blocks of this many.
const ROWS_AT_ONCE: usize = 8;

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

/// Rounds the rows of a step to what products of a precision read. Its memory only grows: a step is bounded.
pub(crate) struct Rounding {
    precision: Precision,
    halves: Vec<bf16>,
    bytes: Vec<i8>,
    scales: Vec<f32>,
}

impl Rounding {
    pub(crate) fn new(precision: Precision) -> Self {
        Self {
            precision,
            halves: Vec::new(),
            bytes: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Returns the written rows in the form that a product reads.
    ///
    /// # Panics
    /// When products of this precision cannot read it.
    pub(crate) fn operand<'a>(
        &'a mut self,
        written: &'a Activations,
        rows: Range<usize>,
    ) -> Operand<'a> {
        let width = written.width;
        let range = numbers_of(rows, width);
        match (self.precision, &written.numbers) {
            (Precision::F32, Numbers::F32(floats)) => Operand::F32(&floats[range]),
            (Precision::Bf16, Numbers::Bf16(halves)) => Operand::Bf16(&halves[range]),
            (Precision::Int8, Numbers::F32(floats)) => self.quantize(&floats[range], width),
            (Precision::Int8, Numbers::Bf16(halves)) => self.quantize(&halves[range], width),
            _ => panic!("products in {:?} read other numbers", self.precision),
        }
    }

    fn quantize<T: Rounded>(&mut self, rows: &[T], width: usize) -> Operand<'_> {
        let (bytes, scales) = self.bytes(rows.len(), width);
        let n = ROWS_AT_ONCE * width;
        rows.par_chunks(n)
            .zip(bytes.par_chunks_mut(n))
            .zip(scales.par_chunks_mut(ROWS_AT_ONCE))
            .for_each_init(
                || vec![0.0; width],
                |rotated, ((rows, bytes), scales)| {
                    quantize_rows(rows, width, rotated, bytes, scales);
                },
            );
        Operand::Int8(bytes, scales)
    }

    /// `x = LayerNorm(x)`, row by row, and `x` as a product reads it.
    pub(crate) fn normalize<'a>(&'a mut self, norm: &Norm, x: &'a mut [f32]) -> Operand<'a> {
        let width = norm.width();
        let n = ROWS_AT_ONCE * width;
        match self.precision {
            Precision::F32 => {
                x.par_chunks_mut(n).for_each(|x| norm.apply(x));
                Operand::F32(x)
            }
            Precision::Bf16 => {
                let halves = at_least(&mut self.halves, x.len());
                x.par_chunks_mut(n)
                    .zip(halves.par_chunks_mut(n))
                    .for_each(|(x, halves)| {
                        norm.apply(x);
                        round(x, halves);
                    });
                Operand::Bf16(halves)
            }
            Precision::Int8 => {
                let (bytes, scales) = self.bytes(x.len(), width);
                x.par_chunks_mut(n)
                    .zip(bytes.par_chunks_mut(n))
                    .zip(scales.par_chunks_mut(ROWS_AT_ONCE))
                    .for_each_init(
                        || vec![0.0; width],
                        |rotated, ((x, bytes), scales)| {
                            norm.apply(x);
                            quantize_rows(x, width, rotated, bytes, scales);
                        },
                    );
                Operand::Int8(bytes, scales)
            }
        }
    }

    /// Room for so many numbers in rows of this width, and for a scale of each row.
    fn bytes(&mut self, n: usize, width: usize) -> (&mut [i8], &mut [f32]) {
        let bytes = at_least(&mut self.bytes, n);
        (bytes, at_least(&mut self.scales, n / width))
    }
}

fn numbers_of(rows: Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Rounds rows to bytes, by way of one row's memory.
fn quantize_rows<T: Rounded>(
    rows: &[T],
    width: usize,
    rotated: &mut [f32],
    bytes: &mut [i8],
    scales: &mut [f32],
) {
    let rows = rows.chunks_exact(width).zip(bytes.chunks_exact_mut(width));
    for ((row, bytes), scale) in rows.zip(scales) {
        *scale = quantize(row, rotated, bytes);
    }
}

/// Cuts or lengthens with zeros; what was larger once is given back only by a batch far smaller.
pub(crate) fn resize<T: Copy + Default>(numbers: &mut Vec<T>, n: usize) {
    numbers.resize(n, T::default());
    if numbers.capacity() > MOST_KEPT / size_of::<T>() && numbers.capacity() > 4 * n {
        numbers.shrink_to(n);
    }
}

/// Memory of one buffer that is kept for the next batch, in bytes: a long input leaves no mark.
const MOST_KEPT: usize = 16 << 20;

/// The first so many numbers, of as many as there ever had to be.
pub(crate) fn at_least<T: Copy + Default>(all: &mut Vec<T>, n: usize) -> &mut [T] {
    all.resize(all.len().max(n), T::default());
    &mut all[..n]
}
