//! Rows of a step, normalized and rounded to what products of a precision read.

use std::ops::Range;

use embedgate_core::encoder::FeedForward;
use half::bf16;
use rayon::{
    iter::{IndexedParallelIterator, ParallelIterator},
    slice::{ParallelSlice, ParallelSliceMut},
};

use super::{Activations, Numbers, ROWS_AT_ONCE, numbers_of};
use crate::{
    linear::Operand,
    memory::at_least,
    precision::Precision,
    vector::{Norm, Rounded, gate, quantize, round},
};

/// Rounds the rows of a step to what products of a precision read. Its memory only grows: a step is bounded.
pub(crate) struct Rounding {
    precision: Precision,
    floats: Vec<f32>,
    halves: Vec<bf16>,
    bytes: Vec<i8>,
    scales: Vec<f32>,
}

impl Rounding {
    /// Rounding for products of a precision, without memory yet.
    pub(crate) fn new(precision: Precision) -> Self {
        Self {
            precision,
            floats: Vec::new(),
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
                    quantize_rows(rows, rotated, bytes, scales);
                },
            );
        Operand::Int8(bytes, scales)
    }

    /// `activation(gate half) * other half` of the written rows, in the form that a product reads.
    ///
    /// # Panics
    /// When the shape has no gate.
    pub(crate) fn gated<'a>(
        &'a mut self,
        written: &'a Activations,
        rows: Range<usize>,
        shape: FeedForward,
    ) -> Operand<'a> {
        let half = shape.gate.expect("a gated feed-forward layer");
        let range = numbers_of(rows, written.width);
        let size = shape.size;
        match &written.numbers {
            Numbers::F32(all) => self.made(&all[range], [written.width, size], |row, to| {
                gate(row, half, shape.activation, to);
            }),
            Numbers::Bf16(all) => self.made(&all[range], [written.width, size], |row, to| {
                gate(row, half, shape.activation, to);
            }),
        }
    }

    /// `norm(x)`, row by row, in the form that a product reads; `x` stays as it is. Without a norm, `x` itself.
    pub(crate) fn normalized<'a>(
        &'a mut self,
        norm: Option<&Norm>,
        x: &'a [f32],
        width: usize,
    ) -> Operand<'a> {
        match norm {
            None if self.precision == Precision::F32 => Operand::F32(x),
            None => self.made(x, [width, width], |row, to| to.copy_from_slice(row)),
            Some(norm) => self.made(x, [width, width], |row, to| {
                to.copy_from_slice(row);
                norm.apply(to);
            }),
        }
    }

    /// Rows that are made of others, in the form that a product reads: `make` gets a row of the first width, and writes one of the
    /// second.
    fn made<T: Rounded>(
        &mut self,
        from: &[T],
        [width, made]: [usize; 2],
        make: impl Fn(&[T], &mut [f32]) + Sync,
    ) -> Operand<'_> {
        let n = from.len() / width * made;
        let blocks = from.par_chunks(ROWS_AT_ONCE * width);
        let spare = || (vec![0.0; made], vec![0.0; made]);
        match self.precision {
            Precision::F32 => {
                let floats = at_least(&mut self.floats, n);
                let blocks = blocks.zip(floats.par_chunks_mut(ROWS_AT_ONCE * made));
                blocks.for_each(|(rows, to)| {
                    for (row, to) in rows.chunks_exact(width).zip(to.chunks_exact_mut(made)) {
                        make(row, to);
                    }
                });
                Operand::F32(floats)
            }
            Precision::Bf16 => {
                let halves = at_least(&mut self.halves, n);
                let blocks = blocks.zip(halves.par_chunks_mut(ROWS_AT_ONCE * made));
                blocks.for_each_init(spare, |(row_of, _), (rows, to)| {
                    for (row, to) in rows.chunks_exact(width).zip(to.chunks_exact_mut(made)) {
                        make(row, row_of);
                        round(row_of, to);
                    }
                });
                Operand::Bf16(halves)
            }
            Precision::Int8 => {
                let (bytes, scales) = self.bytes(n, made);
                let blocks = blocks
                    .zip(bytes.par_chunks_mut(ROWS_AT_ONCE * made))
                    .zip(scales.par_chunks_mut(ROWS_AT_ONCE));
                blocks.for_each_init(spare, |(row_of, rotated), ((rows, bytes), scales)| {
                    let bytes = bytes.chunks_exact_mut(made).zip(scales.iter_mut());
                    for (row, (bytes, scale)) in rows.chunks_exact(width).zip(bytes) {
                        make(row, row_of);
                        *scale = quantize(row_of, rotated, bytes);
                    }
                });
                Operand::Int8(bytes, scales)
            }
        }
    }

    /// `x = norm(x)`, row by row, and `x` as a product reads it.
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
                            quantize_rows(x, rotated, bytes, scales);
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

/// Rounds rows to bytes, by way of `rotated`, which is as long as a row.
fn quantize_rows<T: Rounded>(
    rows: &[T],
    rotated: &mut [f32],
    bytes: &mut [i8],
    scales: &mut [f32],
) {
    let width = rotated.len();
    let rows = rows.chunks_exact(width).zip(bytes.chunks_exact_mut(width));
    for ((row, bytes), scale) in rows.zip(scales) {
        *scale = quantize(row, rotated, bytes);
    }
}

#[cfg(test)]
mod tests {
    use embedgate_core::encoder::{Activation, Gate, NormKind};

    use super::*;

    const WIDTH: usize = 64;

    fn rows() -> Vec<f32> {
        (0..20 * WIDTH)
            .map(|i| (i as f32 * 0.37).sin() * 3.0)
            .collect()
    }

    /// The numbers of an operand, row by row; bytes as what they are of the rotated row.
    fn numbers(operand: Operand<'_>) -> Vec<f32> {
        match operand {
            Operand::F32(floats) => floats.to_vec(),
            Operand::Bf16(halves) => halves.iter().map(|x| x.to_f32()).collect(),
            Operand::Int8(bytes, scales) => {
                let rows = bytes.chunks_exact(bytes.len() / scales.len()).zip(scales);
                let rows = rows.map(|(row, scale)| row.iter().map(move |x| f32::from(*x) * scale));
                rows.flatten().collect()
            }
        }
    }

    /// Rounds rows that were computed by hand.
    fn rounded(precision: Precision, rows: &[f32], width: usize) -> Vec<f32> {
        let mut rounding = Rounding::new(precision);
        numbers(rounding.made(rows, [width, width], |row, to| to.copy_from_slice(row)))
    }

    #[test]
    fn a_gate_and_a_normalization_come_before_the_rounding() {
        let x = rows();
        let shape = FeedForward {
            size: WIDTH / 2,
            activation: Activation::Silu,
            gate: Some(Gate::Second),
        };
        let silu = |x: f32| x / (1.0 + (-x).exp());
        let of_row = |row: &[f32]| -> Vec<f32> {
            let (first, second) = row.split_at(shape.size);
            first
                .iter()
                .zip(second)
                .map(|(a, b)| a * silu(*b))
                .collect()
        };
        let gated: Vec<f32> = x.chunks_exact(WIDTH).flat_map(of_row).collect();
        let norm = Norm {
            kind: NormKind::Rms,
            weight: vec![1.5; WIDTH],
            bias: vec![0.0; WIDTH],
            eps: 1e-6,
        };
        let mut normalized = x.clone();
        norm.apply(&mut normalized);
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let near = |got: Vec<f32>, expected: Vec<f32>| {
                let far = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                let far = far.fold(0.0, f32::max);
                // A last bit that differs may round to the next step.
                let step = if precision == Precision::Int8 {
                    0.6
                } else {
                    0.1
                };
                assert!(
                    got.len() == expected.len() && far < step,
                    "{precision:?} {far}"
                );
            };
            let mut written = Activations::new(WIDTH, Precision::F32);
            written.resize(20);
            if let Numbers::F32(floats) = &mut written.numbers {
                floats.copy_from_slice(&x);
            }
            let mut rounding = Rounding::new(precision);
            let got = numbers(rounding.gated(&written, 0..20, shape));
            near(got, rounded(precision, &gated, WIDTH / 2));
            let got = numbers(rounding.normalized(Some(&norm), &x, WIDTH));
            near(got, rounded(precision, &normalized, WIDTH));
        }
    }
}
