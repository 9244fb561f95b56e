//! Operations on parts of a row: heads of queries and keys, and the halves of a gated feed-forward layer.

use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use embedgate_core::{
    encoder::{Activation, Gate, NormKind, RotaryPairs},
    math::{Fused, gelu, gelu_tanh, silu, tanh},
};

use super::{
    row::{for_each_row, norm_row},
    slice, slice_mut,
};

/// Normalizes some columns of each row, each run of the norm's width by itself; the second operand stacks a bias that is
/// added first, and weight and bias of the norm.
pub(crate) struct ColumnNorm {
    pub(crate) columns: Range<usize>,
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
}

/// Turns the pairs of numbers of the first heads of each row; the second operand has the cosines and sines of each row.
pub(crate) struct Turn {
    pub(crate) n_heads: usize,
    /// Numbers of a head.
    pub(crate) size: usize,
    pub(crate) pairs: RotaryPairs,
}

/// Multiplies the activation of one half of each row with the other half; the first half becomes the product.
pub(crate) struct Gated {
    pub(crate) gate: Gate,
    pub(crate) activation: Activation,
}

impl InplaceOp2 for ColumnNorm {
    fn name(&self) -> &'static str {
        "column-norm"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<()> {
        let parameters = slice(parameters, parameters_layout)?;
        let run = parameters.len() / 3;
        let (bias, norm) = parameters.split_at(run);
        let (weight, offset) = norm.split_at(run);
        let width = x_layout.dims().last().copied().unwrap_or(1);
        for_each_row(
            slice_mut(x, x_layout)?,
            width,
            #[inline(always)]
            |_, row, _| {
                for part in row[self.columns.clone()].chunks_exact_mut(run) {
                    for (x, b) in part.iter_mut().zip(bias) {
                        *x += b;
                    }
                    norm_row(self.kind, part, [weight, offset], self.eps);
                }
            },
        );
        Ok(())
    }
}

impl InplaceOp2 for Turn {
    fn name(&self) -> &'static str {
        "turn"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        angles: &CpuStorage,
        angles_layout: &Layout,
    ) -> Result<()> {
        let angles = slice(angles, angles_layout)?;
        let n_angles = angles_layout.dims().last().copied().unwrap_or(2);
        let width = x_layout.dims().last().copied().unwrap_or(1);
        for_each_row(
            slice_mut(x, x_layout)?,
            width,
            #[inline(always)]
            |i, row, _| {
                let (cos, sin) = angles[i * n_angles..(i + 1) * n_angles].split_at(n_angles / 2);
                let heads = row[..self.n_heads * self.size].chunks_exact_mut(self.size);
                for head in heads {
                    match self.pairs {
                        RotaryPairs::Halves => turn_halves(head, cos, sin),
                        RotaryPairs::Neighbours => turn_neighbours(head, cos, sin),
                    }
                }
            },
        );
        Ok(())
    }
}

#[inline(always)]
fn turn_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    let pairs = first.iter_mut().zip(second);
    for ((a, b), (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[inline(always)]
fn turn_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let pairs = head.chunks_exact_mut(2);
    for (pair, (cos, sin)) in pairs.zip(cos.iter().zip(sin)) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
    }
}

impl Turn {
    /// The same by candle's stock operations, as a tensor of its own.
    pub(crate) fn stock(&self, x: &Tensor, angles: &Tensor) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let n_pairs = angles.dim(1)? / 2;
        let (turned, n) = (self.n_heads * self.size, self.n_heads);
        let heads = x.narrow(1, 0, turned)?.reshape((rows, n, self.size))?;
        let of = |first| angles.narrow(1, first, n_pairs)?.unsqueeze(1);
        let (cos, sin) = (of(0)?, of(n_pairs)?);
        let paired = heads.narrow(2, 0, 2 * n_pairs)?;
        let (a, b) = match self.pairs {
            RotaryPairs::Halves => (
                paired.narrow(2, 0, n_pairs)?,
                paired.narrow(2, n_pairs, n_pairs)?,
            ),
            RotaryPairs::Neighbours => {
                let paired = paired.contiguous()?.reshape((rows, n, n_pairs, 2))?;
                let member = |i| paired.narrow(3, i, 1)?.squeeze(3);
                (member(0)?, member(1)?)
            }
        };
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let paired = match self.pairs {
            RotaryPairs::Halves => Tensor::cat(&[first, second], 2)?,
            RotaryPairs::Neighbours => {
                Tensor::stack(&[first, second], 3)?.reshape((rows, n, 2 * n_pairs))?
            }
        };
        let rest = heads.narrow(2, 2 * n_pairs, self.size - 2 * n_pairs)?;
        let heads = Tensor::cat(&[paired, rest], 2)?.reshape((rows, turned))?;
        Tensor::cat(&[heads, x.narrow(1, turned, width - turned)?], 1)
    }
}

impl InplaceOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let width = layout.dims().last().copied().unwrap_or(2);
        let x = slice_mut(x, layout)?;
        // Each of them is compiled into a loop of its own.
        match self.activation {
            Activation::Gelu => self.run(x, width, gelu),
            Activation::GeluTanh => self.run(x, width, gelu_tanh),
            Activation::Relu => self.run(x, width, |x, _| x.max(0.0)),
            Activation::Silu => self.run(x, width, silu),
            Activation::Tanh => self.run(x, width, tanh),
        }
        Ok(())
    }
}

impl Gated {
    fn run(&self, x: &mut [f32], width: usize, f: impl Fn(f32, Fused) -> f32 + Sync) {
        for_each_row(
            x,
            width,
            #[inline(always)]
            |_, row, fused| {
                let (first, second) = row.split_at_mut(width / 2);
                for (a, b) in first.iter_mut().zip(second) {
                    *a = match self.gate {
                        Gate::First => f(*a, fused) * *b,
                        Gate::Second => *a * f(*b, fused),
                    };
                }
            },
        );
    }
}
