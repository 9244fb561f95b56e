//! Reads a model's weights and packs them, one tensor at a time.

use embedgate_core::{
    EncoderConfig,
    encoder::{Activation, stacked::Stacked},
};
use embedgate_weights::{Weights, WeightsError};
use thiserror::Error;

use crate::{
    linear::{Form, Linear},
    onednn::{Format, Library, OneDnnError},
    precision::{Precision, operands},
    table::Table,
    vector::Norm,
};

/// The reasons why a model cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Library(#[from] OneDnnError),
}

/// The data that the loading of every part of a model needs.
pub(crate) struct Loader<'a> {
    pub(crate) library: &'static Library,
    pub(crate) weights: &'a Weights,
    pub(crate) precision: Precision,
    /// The precision of the numbers that products write and attention reads.
    pub(crate) activations: Precision,
    pub(crate) threads: usize,
}

impl Loader<'_> {
    /// A layer of the encoder, in the model's precision.
    pub(crate) fn linear(
        &self,
        name: &str,
        [outer, inner]: [usize; 2],
        activation: Option<Activation>,
        dst: Format,
    ) -> Result<Linear, LoadError> {
        let form = Form {
            precision: self.precision,
            activation,
            dst,
            threads: self.threads,
        };
        self.packed(form, name, [outer, inner])
    }

    /// A layer that keeps f32.
    pub(crate) fn exact(
        &self,
        name: &str,
        outer: usize,
        inner: usize,
    ) -> Result<Linear, LoadError> {
        let form = Form {
            precision: Precision::F32,
            activation: None,
            dst: Format::F32,
            threads: self.threads,
        };
        self.packed(form, name, [outer, inner])
    }

    fn packed(
        &self,
        form: Form,
        name: &str,
        [outer, inner]: [usize; 2],
    ) -> Result<Linear, LoadError> {
        let bias = self.numbers(&format!("{name}.bias"), &[outer])?;
        let weight = self.numbers(&format!("{name}.weight"), &[outer, inner])?;
        Ok(Linear::pack(self.library, form, &weight, &bias)?)
    }

    /// Query, key and value in one layer. The query is already divided by the square root of the head size, and scaled so
    /// that the softmax takes powers of 2.
    pub(crate) fn fused_qkv(
        &self,
        config: &EncoderConfig,
        layer: usize,
    ) -> Result<Linear, LoadError> {
        let query_scale = std::f32::consts::LOG2_E / (config.head_size() as f32).sqrt();
        let read = |name: &str, shape: &[usize]| self.numbers(name, shape);
        let Stacked { weight, bias } = config.stacked_qkv(layer, query_scale, read)?;
        let form = Form {
            precision: self.precision,
            activation: None,
            dst: operands(self.activations),
            threads: self.threads,
        };
        Ok(Linear::pack(self.library, form, &weight, &bias)?)
    }

    /// Reads a normalization.
    pub(crate) fn norm(&self, name: &str, config: &EncoderConfig) -> Result<Norm, LoadError> {
        let width = [config.hidden_size];
        Ok(Norm {
            weight: self.numbers(&format!("{name}.weight"), &width)?,
            bias: self.numbers(&format!("{name}.bias"), &width)?,
            eps: config.layer_norm_eps,
        })
    }

    /// Reads a tensor of this shape, as f32.
    pub(crate) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        Ok(self.weights.values(name, shape)?)
    }

    /// The vectors of tokens, of which there are many, in the model's precision.
    pub(crate) fn table(&self, name: &str, rows: usize, width: usize) -> Result<Table, LoadError> {
        let mut table = Table::zeros(self.precision, rows, width);
        self.weights
            .with_rows(name, [rows, width], |first, values| {
                table.put(first, values, width);
            })?;
        Ok(table)
    }
}
