//! The encoder's row-wise arithmetic: in place by this crate's own operations, which are for f32 on the processor; elsewhere by candle's
//! stock ones.

use std::ops::Range;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, rms_norm, softmax_last_dim};
use embedgate_core::encoder::{Activation, Gate, NormKind, RotaryPairs};

use crate::{
    norm::Norm,
    ops::{Add, AddBias, AddNorm, BiasActivation, ColumnNorm, Gated, Softmax, Turn},
};

/// The device of a model's tensors, and their format.
#[derive(Clone, Debug)]
pub(crate) struct TensorOptions {
    pub(crate) device: Device,
    pub(crate) format: DType,
    pub(crate) rows: Rows,
}

/// An implementation of the arithmetic. Its functions may change their first operand, which nobody reads afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    Own,
    Stock,
}

impl Rows {
    /// `x + y`, of one shape.
    pub(crate) fn add(self, x: Tensor, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Own => x.inplace_op2(y, &Add).map(|()| x),
            Self::Stock => x + y,
        }
    }

    /// `x + bias`, row by row.
    pub(crate) fn add_bias(self, x: Tensor, bias: &Tensor) -> Result<Tensor> {
        match self {
            Self::Own => x.inplace_op2(bias, &AddBias).map(|()| x),
            Self::Stock => x.broadcast_add(bias),
        }
    }

    /// `activation(x + bias)`, row by row.
    pub(crate) fn activate(
        self,
        x: Tensor,
        bias: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        match self {
            Self::Own => x.inplace_op2(bias, &BiasActivation(activation)).map(|()| x),
            Self::Stock => stock_activation(&x.broadcast_add(bias)?, activation),
        }
    }

    /// `activation(gate half of x) * other half of x`, row by row: half as wide.
    pub(crate) fn gate(self, x: &Tensor, gate: Gate, activation: Activation) -> Result<Tensor> {
        let size = x.dim(D::Minus1)? / 2;
        let half = |i: usize| x.narrow(D::Minus1, i * size, size);
        if self == Self::Own {
            x.inplace_op1(&Gated { gate, activation })?;
            return half(0)?.contiguous();
        }
        let (gate, other) = match gate {
            Gate::First => (half(0)?, half(1)?),
            Gate::Second => (half(1)?, half(0)?),
        };
        stock_activation(&gate.contiguous()?, activation)? * other
    }

    /// Turns the pairs of numbers of the first `n` heads of each row by angles, of shape `(rows, 2 * pairs)`: cosines, then
    /// sines. `heads` are `n` and the size of a head.
    pub(crate) fn turn(
        self,
        x: Tensor,
        angles: &Tensor,
        heads: (usize, usize),
        pairs: RotaryPairs,
    ) -> Result<Tensor> {
        let (n_heads, size) = heads;
        let turn = Turn {
            n_heads,
            size,
            pairs,
        };
        match self {
            Self::Own => x.inplace_op2(angles, &turn).map(|()| x),
            Self::Stock => turn.stock(&x, angles),
        }
    }

    /// `norm(x + bias)`, row by row, as a tensor of its own; the norm's parameters stack bias, weight and bias of the norm.
    pub(crate) fn norm(self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        match self {
            Self::Own => {
                let width = x.dim(D::Minus1)?;
                self.norm_columns(x.copy()?, 0..width, norm)
            }
            Self::Stock => stock_norm(&x.broadcast_add(&norm.parameters.get(0)?)?, norm),
        }
    }

    /// Normalizes some columns of each row, each run of the norm's width by itself.
    pub(crate) fn norm_columns(
        self,
        x: Tensor,
        columns: Range<usize>,
        norm: &Norm,
    ) -> Result<Tensor> {
        if self == Self::Own {
            let op = ColumnNorm {
                columns,
                kind: norm.kind,
                eps: norm.eps,
            };
            return x.inplace_op2(&norm.parameters, &op).map(|()| x);
        }
        let (rows, width) = x.dims2()?;
        let run = norm.parameters.dim(1)?;
        let inner = x.narrow(1, columns.start, columns.len())?;
        let inner = inner.reshape((rows, columns.len() / run, run))?;
        let inner = stock_norm(&inner, norm)?.reshape((rows, columns.len()))?;
        let (left, right) = (
            x.narrow(1, 0, columns.start)?,
            x.narrow(1, columns.end, width - columns.end)?,
        );
        Tensor::cat(&[left, inner, right], 1)
    }

    /// `softmax(x)` over the last axis.
    pub(crate) fn softmax(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Own => x.inplace_op1(&Softmax).map(|()| x),
            Self::Stock => softmax_last_dim(&x),
        }
    }

    /// `norm(x + bias + residual)`, row by row; the norm's parameters stack bias, weight and bias of the norm.
    pub(crate) fn add_norm(self, x: Tensor, residual: &Tensor, norm: &Norm) -> Result<Tensor> {
        let parameters = &norm.parameters;
        match self {
            Self::Own => {
                let add_norm = AddNorm {
                    kind: norm.kind,
                    eps: norm.eps,
                };
                x.inplace_op3(residual, parameters, &add_norm).map(|()| x)
            }
            Self::Stock => {
                let sum = (x.broadcast_add(&parameters.get(0)?)? + residual)?;
                stock_norm(&sum, norm)
            }
        }
    }
}

fn stock_activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::Silu => x.silu(),
        Activation::Tanh => x.tanh(),
    }
}

fn stock_norm(x: &Tensor, norm: &Norm) -> Result<Tensor> {
    let (weight, bias) = (norm.parameters.get(1)?, norm.parameters.get(2)?);
    let x = x.contiguous()?;
    match norm.kind {
        NormKind::Layer => layer_norm(&x, &weight, &bias, norm.eps),
        NormKind::Rms => rms_norm(&x, &weight, norm.eps),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(a: &Tensor, b: &Tensor) -> Result<f32> {
        (a - b)?.abs()?.max_all()?.to_scalar()
    }

    #[test]
    fn candles_own_operations_give_the_same() -> Result<()> {
        let random = |shape: (usize, usize)| Tensor::randn(0.0_f32, 2.0, shape, &Device::Cpu);
        let (x, y) = (random((30, 40))?, random((30, 40))?);
        let parameters = random((3, 40))?;
        let bias = parameters.get(0)?;
        let own = |of: &dyn Fn(Rows, Tensor) -> Result<Tensor>| -> Result<f32> {
            let expected = of(Rows::Stock, x.copy()?)?;
            far(&of(Rows::Own, x.copy()?)?, &expected)
        };
        assert!(own(&|rows, x| rows.add(x, &y))? < 1e-6);
        assert!(own(&|rows, x| rows.add_bias(x, &bias))? < 1e-6);
        assert!(own(&|rows, x| rows.softmax(x))? < 1e-6);
        let all = [
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Relu,
            Activation::Silu,
            Activation::Tanh,
        ];
        for activation in all {
            assert!(own(&|rows, x| rows.activate(x, &bias, activation))? < 1e-5);
            for gate in [Gate::First, Gate::Second] {
                assert!(own(&|rows, x| rows.gate(&x, gate, activation))? < 1e-5);
            }
        }
        for pairs in [RotaryPairs::Halves, RotaryPairs::Neighbours] {
            let angles = random((30, 8))?;
            let far = own(&|rows, x| rows.turn(x, &angles, (3, 10), pairs))?;
            assert!(far < 1e-5, "{pairs:?} {far}");
        }
        Ok(())
    }

    #[test]
    fn normalizations_are_candles_own() -> Result<()> {
        let random = |shape: (usize, usize)| Tensor::randn(0.0_f32, 2.0, shape, &Device::Cpu);
        let (x, y) = (random((30, 40))?, random((30, 40))?);
        for kind in [NormKind::Layer, NormKind::Rms] {
            let norm = |rows, width| {
                let mut parameters = random((3, width))?.to_vec2::<f32>()?;
                if kind == NormKind::Rms {
                    parameters[2].fill(0.0);
                }
                if width < 40 {
                    parameters[0].fill(0.0);
                }
                Ok::<_, candle_core::Error>(Norm {
                    kind,
                    eps: 1e-5,
                    parameters: Tensor::new(parameters, &Device::Cpu)?,
                    rows,
                })
            };
            let (whole, of_head) = (norm(Rows::Own, 40)?, norm(Rows::Own, 10)?);
            let own = |of: &dyn Fn(Rows) -> Result<Tensor>| far(&of(Rows::Own)?, &of(Rows::Stock)?);
            assert!(own(&|rows| rows.norm(&x, &whole))? < 1e-4);
            assert!(own(&|rows| rows.add_norm(x.copy()?, &y, &whole))? < 1e-4);
            assert!(own(&|rows| rows.norm_columns(x.copy()?, 10..30, &of_head))? < 1e-4);
        }
        Ok(())
    }
}
