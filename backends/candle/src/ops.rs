//! The encoder's row-wise arithmetic, in place and in one pass each, over all rows in parallel.
//!
//! candle's own operations would make a tensor for every bias, sum and activation; at 1024 x 4096 numbers a layer the
//! memory traffic costs as much as a matrix product. They would also run on threads of candle's own, which spin.
//!
//! Here are the operations as candle knows them; `row` has their loops.

mod heads;
mod row;

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, bail};
use embedgate_core::{
    encoder::{Activation, NormKind},
    math::{gelu, gelu_tanh, silu, tanh},
};

pub(crate) use self::heads::{ColumnNorm, Gated, Turn};
use self::row::{activate, add, for_each_row, norm_row, softmax_row};

/// `x += y`, of the same shape.
pub(crate) struct Add;

/// `x += bias`, row by row.
pub(crate) struct AddBias;

/// `x = activation(x + bias)`, row by row.
pub(crate) struct BiasActivation(pub(crate) Activation);

/// `x = softmax(x)` over the last axis.
pub(crate) struct Softmax;

/// `x = norm(x + bias + residual)`, row by row; the third operand stacks bias, weight and bias of the norm.
///
/// Mean and variance are taken in two passes over the row, as PyTorch's are: the difference of squares would lose
/// digits where the mean is large.
pub(crate) struct AddNorm {
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
}

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<()> {
        let y = slice(y, y_layout)?;
        let width = x_layout.dims().last().copied().unwrap_or(1);
        for_each_row(
            slice_mut(x, x_layout)?,
            width,
            #[inline(always)]
            |i, row, _| add(row, &y[i * width..(i + 1) * width]),
        );
        Ok(())
    }
}

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let bias = slice(bias, bias_layout)?;
        for_each_row(
            slice_mut(x, x_layout)?,
            bias.len(),
            #[inline(always)]
            |_, row, _| add(row, bias),
        );
        Ok(())
    }
}

impl InplaceOp2 for BiasActivation {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let (x, bias) = (slice_mut(x, x_layout)?, slice(bias, bias_layout)?);
        match self.0 {
            Activation::Gelu => activate(x, bias, gelu),
            Activation::GeluTanh => activate(x, bias, gelu_tanh),
            Activation::Relu => activate(x, bias, |x, _| x.max(0.0)),
            Activation::Silu => activate(x, bias, silu),
            Activation::Tanh => activate(x, bias, tanh),
        }
        Ok(())
    }
}

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let width = layout.dims().last().copied().unwrap_or(1);
        for_each_row(
            slice_mut(x, layout)?,
            width,
            #[inline(always)]
            |_, row, fused| softmax_row(row, fused),
        );
        Ok(())
    }
}

impl InplaceOp3 for AddNorm {
    fn name(&self) -> &'static str {
        "add-norm"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<()> {
        let residual = slice(residual, residual_layout)?;
        let parameters = slice(parameters, parameters_layout)?;
        let width = parameters.len() / 3;
        let (bias, norm) = parameters.split_at(width);
        let (gamma, beta) = norm.split_at(width);
        for_each_row(
            slice_mut(x, x_layout)?,
            width,
            #[inline(always)]
            |i, row, _| {
                let residual = &residual[i * width..(i + 1) * width];
                for ((x, b), r) in row.iter_mut().zip(bias).zip(residual) {
                    *x += b + r;
                }
                norm_row(self.kind, row, [gamma, beta], self.eps);
            },
        );
        Ok(())
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("expected a contiguous tensor"),
    }
}

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(numbers), Some((start, end))) => Ok(&mut numbers[start..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn softmax_equals_candles_own() -> Result<()> {
        let x = Tensor::randn(0.0_f32, 20.0, (7, 300), &Device::Cpu)?;
        let expected = candle_nn::ops::softmax_last_dim(&x)?;
        x.inplace_op1(&Softmax)?;
        let far = (x - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(far < 1e-6, "differs by {far}");
        Ok(())
    }

    #[test]
    fn add_norm_equals_the_textbook_on_rows_of_every_block() -> Result<()> {
        let (rows, width) = (1000, 37);
        let x = Tensor::randn(3.0_f32, 2.0, (rows, width), &Device::Cpu)?;
        let residual = Tensor::randn(0.0_f32, 1.0, (rows, width), &Device::Cpu)?;
        let parameters = Tensor::randn(0.0_f32, 1.0, (3, width), &Device::Cpu)?;
        let sum = (x.broadcast_add(&parameters.get(0)?)? + &residual)?;
        let centered = sum.broadcast_sub(&sum.mean_keepdim(1)?)?;
        let deviation = (centered.sqr()?.mean_keepdim(1)? + 1e-5)?.sqrt()?;
        let expected = centered.broadcast_div(&deviation)?;
        let expected = expected
            .broadcast_mul(&parameters.get(1)?)?
            .broadcast_add(&parameters.get(2)?)?;

        x.inplace_op3(
            &residual,
            &parameters,
            &AddNorm {
                kind: NormKind::Layer,
                eps: 1e-5,
            },
        )?;
        let far = (x - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(far < 1e-5, "differs by {far}");
        Ok(())
    }
}
