//! The encoder's row-wise arithmetic: in place by this crate's own operations, which are for f32 on the processor; elsewhere by candle's
//! stock ones.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};
use embedgate_core::encoder::Activation;

use crate::ops::{Add, AddBias, AddNorm, BiasActivation, Softmax};

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
        match (self, activation) {
            (Self::Own, _) => x.inplace_op2(bias, &BiasActivation(activation)).map(|()| x),
            (Self::Stock, Activation::Gelu) => x.broadcast_add(bias)?.gelu_erf(),
            (Self::Stock, Activation::GeluTanh) => x.broadcast_add(bias)?.gelu(),
            (Self::Stock, Activation::Relu) => x.broadcast_add(bias)?.relu(),
        }
    }

    /// `softmax(x)` over the last axis.
    pub(crate) fn softmax(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Own => x.inplace_op1(&Softmax).map(|()| x),
            Self::Stock => softmax_last_dim(&x),
        }
    }

    /// `LayerNorm(x + bias + residual)`, row by row; `parameters` stacks bias, weight and bias of the norm.
    pub(crate) fn add_norm(
        self,
        x: Tensor,
        residual: &Tensor,
        parameters: &Tensor,
        eps: f32,
    ) -> Result<Tensor> {
        match self {
            Self::Own => {
                let add_norm = AddNorm { eps };
                x.inplace_op3(residual, parameters, &add_norm).map(|()| x)
            }
            Self::Stock => {
                let sum = (x.broadcast_add(&parameters.get(0)?)? + residual)?;
                layer_norm(&sum, &parameters.get(1)?, &parameters.get(2)?, eps)
            }
        }
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
        let (x, y) = (random((30, 37))?, random((30, 37))?);
        let parameters = random((3, 37))?;
        let bias = parameters.get(0)?;
        let own = |of: &dyn Fn(Rows, Tensor) -> Result<Tensor>| -> Result<f32> {
            let expected = of(Rows::Stock, x.copy()?)?;
            far(&of(Rows::Own, x.copy()?)?, &expected)
        };
        assert!(own(&|rows, x| rows.add(x, &y))? < 1e-6);
        assert!(own(&|rows, x| rows.add_bias(x, &bias))? < 1e-6);
        assert!(own(&|rows, x| rows.softmax(x))? < 1e-6);
        assert!(own(&|rows, x| rows.add_norm(x, &y, &parameters, 1e-5))? < 1e-4);
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            assert!(own(&|rows, x| rows.activate(x, &bias, activation))? < 1e-5);
        }
        Ok(())
    }
}
