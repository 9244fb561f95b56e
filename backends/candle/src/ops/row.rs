//! Arithmetic on one row, and the way over all rows in parallel.
//!
//! The loops are plain, and compiled for each instruction set.

use embedgate_core::{
    encoder::NormKind,
    math::{Fused, exp, sum, vectorized},
};
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

/// Rows go to the threads in blocks of at least this many numbers: about 10 microseconds of work.
const BLOCK: usize = 1 << 14;

/// `row += other`.
#[inline(always)]
pub(super) fn add(row: &mut [f32], other: &[f32]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
    }
}

/// `x = f(x + bias)`, row by row.
pub(super) fn activate(x: &mut [f32], bias: &[f32], f: impl Fn(f32, Fused) -> f32 + Sync) {
    for_each_row(
        x,
        bias.len(),
        #[inline(always)]
        |_, row, fused| {
            for (x, b) in row.iter_mut().zip(bias) {
                *x = f(*x + b, fused);
            }
        },
    );
}

/// `row = softmax(row)`. Takes the largest number off first, so that no exponential overflows.
#[inline(always)]
pub(super) fn softmax_row(row: &mut [f32], fused: Fused) {
    let largest = row.iter().fold(
        f32::NEG_INFINITY,
        |largest, x| if *x > largest { *x } else { largest },
    );
    for x in row.iter_mut() {
        *x = exp(*x - largest, fused);
    }
    let scale = 1.0 / sum(row, |x| x);
    for x in row {
        *x *= scale;
    }
}

/// `row = norm(row)`.
#[inline(always)]
pub(super) fn norm_row(kind: NormKind, row: &mut [f32], parameters: [&[f32]; 2], eps: f32) {
    match kind {
        NormKind::Layer => layer_norm_row(row, parameters, eps),
        NormKind::Rms => rms_norm_row(row, parameters[0], eps),
    }
}

#[inline(always)]
fn rms_norm_row(row: &mut [f32], gamma: &[f32], eps: f32) {
    let squares = sum(row, |x| x * x) / row.len() as f32;
    let scale = 1.0 / (squares + eps).sqrt();
    for (x, g) in row.iter_mut().zip(gamma) {
        *x = *x * scale * g;
    }
}

#[inline(always)]
fn layer_norm_row(row: &mut [f32], [gamma, beta]: [&[f32]; 2], eps: f32) {
    let n = row.len() as f32;
    let mean = sum(row, |x| x) / n;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((x, g), b) in row.iter_mut().zip(gamma).zip(beta) {
        *x = (*x - mean) * scale * g + b;
    }
}

/// Calls `f`, which must be marked to be inlined, with the index and the numbers of each row.
pub(super) fn for_each_row(
    x: &mut [f32],
    width: usize,
    f: impl Fn(usize, &mut [f32], Fused) + Sync,
) {
    let rows = (BLOCK / width).max(1);
    let in_block = |(block, chunk): (usize, &mut [f32])| {
        vectorized(
            #[inline(always)]
            |fused| {
                for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
                    f(block * rows + i, row, fused);
                }
            },
        );
    };
    if x.len() <= BLOCK {
        in_block((0, x));
    } else {
        x.par_chunks_mut(rows * width)
            .enumerate()
            .for_each(in_block);
    }
}
