//! The numbers of a forward pass, in memory that a worker keeps from batch to batch.

use embedgate_core::Precision;
use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use crate::{
    linear::{Operand, Target},
    onednn::Format,
    vector::{Norm, Rounded, quantize, round},
};

/// Rows go to the threads in blocks of this many.
const ROWS_AT_ONCE: usize = 8;

/// Rows of one width that are between two products: written as f32 or bfloat16, read as the layers' precision wants them.
pub(crate) struct Rows {
    pub(crate) width: usize,
    precision: Precision,
    /// Of what is written.
    between: Format,
    floats: Vec<f32>,
    halves: Vec<bf16>,
    bytes: Vec<i8>,
    scales: Vec<f32>,
}

impl Rows {
    pub(crate) fn new(width: usize, precision: Precision, between: Format) -> Self {
        Self {
            width,
            precision,
            between,
            floats: Vec::new(),
            halves: Vec::new(),
            bytes: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Makes room for so many rows, without changing those that are there. Rows that are new are zeros.
    pub(crate) fn resize(&mut self, rows: usize) {
        let n = rows * self.width;
        match self.between {
            Format::F32 => resize(&mut self.floats, n),
            Format::Bf16 | Format::S8 => resize(&mut self.halves, n),
        }
        if self.precision == Precision::Int8 {
            resize(&mut self.bytes, n);
            resize(&mut self.scales, rows);
        }
    }

    pub(crate) fn floats(&mut self) -> &mut [f32] {
        &mut self.floats
    }

    pub(crate) fn halves(&mut self) -> &mut [bf16] {
        &mut self.halves
    }

    /// Makes the rows from here on zeros: nobody wrote them, and what is left of an earlier batch may be no number.
    pub(crate) fn clear_from(&mut self, row: usize) {
        let first = row * self.width;
        match self.between {
            Format::F32 => self.floats[first..].fill(0.0),
            Format::Bf16 | Format::S8 => self.halves[first..].fill(bf16::ZERO),
        }
    }

    /// To be written by a product.
    pub(crate) fn target(&mut self) -> Target<'_> {
        match self.between {
            Format::F32 => Target::F32(&mut self.floats),
            Format::Bf16 | Format::S8 => Target::Bf16(&mut self.halves),
        }
    }

    /// To be read by a product, once they are prepared.
    pub(crate) fn operand(&self) -> Operand<'_> {
        match self.precision {
            Precision::F32 => Operand::F32(&self.floats),
            Precision::Bf16 => Operand::Bf16(&self.halves),
            Precision::Int8 => Operand::Int8(&self.bytes, &self.scales),
        }
    }

    /// Prepares what a product wrote for being read by the next.
    pub(crate) fn prepare(&mut self) {
        if self.precision != Precision::Int8 {
            return;
        }
        let (width, bytes, scales) = (self.width, &mut self.bytes, &mut self.scales);
        match self.between {
            Format::F32 => quantize_all(&self.floats, width, bytes, scales),
            Format::Bf16 | Format::S8 => quantize_all(&self.halves, width, bytes, scales),
        }
    }

    /// `x = LayerNorm(x)`, row by row, and these rows are `x` as a product reads it.
    pub(crate) fn normalize(&mut self, norm: &Norm, x: &mut [f32]) {
        let (width, precision) = (self.width, self.precision);
        let n = ROWS_AT_ONCE * width;
        let x = x.par_chunks_mut(n);
        match precision {
            Precision::F32 => x
                .zip(self.floats.par_chunks_mut(n))
                .for_each(|(x, floats)| {
                    norm.apply(x);
                    floats.copy_from_slice(x);
                }),
            Precision::Bf16 => x
                .zip(self.halves.par_chunks_mut(n))
                .for_each(|(x, halves)| {
                    norm.apply(x);
                    round(x, halves);
                }),
            Precision::Int8 => {
                let scales = self.scales.par_chunks_mut(ROWS_AT_ONCE);
                let bytes = self.bytes.par_chunks_mut(n);
                x.zip(bytes).zip(scales).for_each_init(
                    || vec![0.0; width],
                    |rotated, ((x, bytes), scales)| {
                        norm.apply(x);
                        quantize_rows(x, width, rotated, bytes, scales);
                    },
                );
            }
        }
    }
}

/// Rounds rows to bytes, on all threads.
fn quantize_all<T: Rounded>(rows: &[T], width: usize, bytes: &mut [i8], scales: &mut [f32]) {
    let n = ROWS_AT_ONCE * width;
    let bytes = bytes.par_chunks_mut(n);
    let scales = scales.par_chunks_mut(ROWS_AT_ONCE);
    rows.par_chunks(n).zip(bytes).zip(scales).for_each_init(
        || vec![0.0; width],
        |rotated, ((rows, bytes), scales)| quantize_rows(rows, width, rotated, bytes, scales),
    );
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
