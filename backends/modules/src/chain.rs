//! The modules of one model, with their weights.

use embedgate_core::{
    BackendError,
    encoder::{Activation, Linear, LinearValues, NormValues},
    math::{self, dot, sum},
    vector_module::VectorModule,
};
use embedgate_weights::{Weights, WeightsError};

/// Modules, one after the other.
pub(crate) struct Chain {
    dimensions: usize,
    modules: Vec<Module>,
    /// The weights of a sparse vector that are kept, where some are left out.
    pub(crate) max_weights: Option<usize>,
}

enum Module {
    Dense {
        layer: LinearValues,
        activation: Option<Activation>,
        residual: Option<LinearValues>,
        has_residual: bool,
    },
    Norm {
        values: NormValues,
        eps: f32,
    },
    Normalize,
    Truncate(usize),
}

/// Opens the weights of a module, and checks that its main tensor is there.
pub(crate) fn inspect(module: &VectorModule) -> Result<(), WeightsError> {
    let opened = match module {
        VectorModule::Dense(dense) => {
            Weights::open(&dense.folder, &format!("{}.weight", dense.linear.name()))
        }
        VectorModule::Norm { folder, norm } => {
            Weights::open(folder, &format!("{}.weight", norm.name))
        }
        VectorModule::Normalize | VectorModule::Truncate(_) => return Ok(()),
    };
    opened.map(|_| ())
}

impl Module {
    fn read(module: &VectorModule) -> Result<Self, WeightsError> {
        Ok(match module {
            VectorModule::Dense(dense) => {
                let weights =
                    Weights::open(&dense.folder, &format!("{}.weight", dense.linear.name()))?;
                let read = |layer: &Linear| layer.read(|name, shape| weights.values(name, shape));
                Self::Dense {
                    layer: read(&dense.linear)?,
                    activation: dense.activation,
                    residual: dense.residual.as_ref().map(read).transpose()?,
                    has_residual: dense.has_residual,
                }
            }
            VectorModule::Norm { folder, norm } => {
                let weights = Weights::open(folder, &format!("{}.weight", norm.name))?;
                Self::Norm {
                    values: norm.read(|name, shape| weights.values(name, shape))?,
                    eps: norm.eps,
                }
            }
            VectorModule::Normalize => Self::Normalize,
            VectorModule::Truncate(n) => Self::Truncate(*n),
        })
    }
}

impl Chain {
    /// Reads the weights of modules behind a vector of so many dimensions.
    pub(crate) fn load(modules: &[VectorModule], dimensions: usize) -> Result<Self, BackendError> {
        let mut chain = Self {
            dimensions,
            modules: Vec::new(),
            max_weights: None,
        };
        for module in modules {
            chain.add(module)?;
        }
        Ok(chain)
    }

    fn add(&mut self, module: &VectorModule) -> Result<(), BackendError> {
        let dimensions = module.width_of(self.dimensions).map_err(|reads| {
            BackendError::Load(format!(
                "a module of modules.json reads {reads} numbers, and the backend gives {}",
                self.dimensions
            ))
        })?;
        let read = Module::read(module);
        self.modules
            .push(read.map_err(|e| BackendError::Load(e.to_string()))?);
        self.dimensions = dimensions;
        Ok(())
    }

    /// Numbers of a vector behind the modules.
    pub(crate) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Takes a vector through the modules.
    pub(crate) fn run(&self, vector: &[f32]) -> Vec<f32> {
        let mut x = vector.to_vec();
        for module in &self.modules {
            match module {
                Module::Dense {
                    layer,
                    activation,
                    residual,
                    has_residual,
                } => {
                    let mut made = linear(layer, &x);
                    if let Some(activation) = activation {
                        activate(&mut made, *activation);
                    }
                    match residual {
                        Some(residual) => add(&mut made, &linear(residual, &x)),
                        None if *has_residual => add(&mut made, &x),
                        None => {}
                    }
                    x = made;
                }
                Module::Norm { values, eps } => normalize(&mut x, values, *eps),
                Module::Normalize => {
                    // As torch does: a vector of zeros stays one.
                    let length = sum(&x, |x| x * x).sqrt().max(1e-12);
                    x.iter_mut().for_each(|x| *x /= length);
                }
                Module::Truncate(n) => x.truncate(*n),
            }
        }
        x
    }
}

/// `W x + b`.
fn linear(layer: &LinearValues, x: &[f32]) -> Vec<f32> {
    let rows = layer.weight.chunks_exact(x.len()).zip(&layer.bias);
    rows.map(|(row, bias)| dot(row, x) + bias).collect()
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
}

fn activate(x: &mut [f32], activation: Activation) {
    let of = |x: f32| match activation {
        Activation::Gelu => math::gelu(x, false),
        Activation::GeluTanh => math::gelu_tanh(x, false),
        // Not max, which would lose a NaN.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Silu => math::silu(x, false),
        Activation::Tanh => x.tanh(),
    };
    x.iter_mut().for_each(|x| *x = of(*x));
}

fn normalize(x: &mut [f32], values: &NormValues, eps: f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((x, weight), bias) in x.iter_mut().zip(&values.weight).zip(&values.bias) {
        *x = (*x - mean) * scale * weight + bias;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(modules: Vec<Module>) -> Chain {
        Chain {
            dimensions: 2,
            modules,
            max_weights: None,
        }
    }

    fn layer(weight: &[f32], bias: &[f32]) -> LinearValues {
        LinearValues {
            weight: weight.to_vec(),
            bias: bias.to_vec(),
        }
    }

    #[test]
    fn modules_run_one_after_the_other() {
        let dense = |activation, has_residual| Module::Dense {
            layer: layer(&[1.0, 2.0, -3.0, 4.0], &[0.5, -1.0]),
            activation,
            residual: None,
            has_residual,
        };
        // 1 * 1 + 2 * -1 + 0.5 and -3 * 1 + 4 * -1 - 1.
        assert_eq!(
            chain(vec![dense(None, false)]).run(&[1.0, -1.0]),
            [-0.5, -8.0]
        );
        assert_eq!(
            chain(vec![dense(None, true)]).run(&[1.0, -1.0]),
            [0.5, -9.0]
        );
        let relu = chain(vec![
            dense(Some(Activation::Relu), false),
            Module::Normalize,
        ]);
        assert_eq!(relu.run(&[1.0, -1.0]), [0.0, 0.0]);
        let tanh = chain(vec![dense(Some(Activation::Tanh), false)]).run(&[1.0, -1.0]);
        assert!((tanh[0] - (-0.5_f32).tanh()).abs() < 1e-7);
        let norm = Module::Norm {
            values: NormValues {
                weight: vec![2.0, 2.0],
                bias: vec![1.0, 1.0],
            },
            eps: 0.0,
        };
        assert_eq!(chain(vec![norm]).run(&[3.0, 5.0]), [-1.0, 3.0]);
        let unit = chain(vec![Module::Normalize]).run(&[3.0, 4.0]);
        assert_eq!(unit, [0.6, 0.8]);
        let first = chain(vec![Module::Normalize, Module::Truncate(1)]);
        assert_eq!(first.run(&[3.0, 4.0]), [0.6]);
    }
}
