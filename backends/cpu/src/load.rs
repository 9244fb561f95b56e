//! Reads a model's weights and packs them, one tensor at a time.

use std::ops::Range;

use embedgate_core::encoder::{
    self, Activation, Attention, EncoderConfig, LanguageHead, Layer, Linear as Source,
    LinearValues, NormValues,
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
        source: &Source,
        activation: Option<Activation>,
        dst: Format,
    ) -> Result<Linear, LoadError> {
        let values = source.read(|name, shape| self.numbers(name, shape))?;
        self.pack(self.form(activation, dst), &values)
    }

    /// A layer that keeps f32.
    pub(crate) fn exact(&self, source: &Source) -> Result<Linear, LoadError> {
        self.exact_with(source, None)
    }

    /// A layer that keeps f32, with an activation.
    pub(crate) fn exact_with(
        &self,
        source: &Source,
        activation: Option<Activation>,
    ) -> Result<Linear, LoadError> {
        let form = Form {
            precision: Precision::F32,
            ..self.form(activation, Format::F32)
        };
        self.pack(form, &source.read(|name, shape| self.numbers(name, shape))?)
    }

    /// The last layer of a masked language model's head, which keeps f32.
    pub(crate) fn decoder(
        &self,
        head: &LanguageHead,
        config: &EncoderConfig,
    ) -> Result<Linear, LoadError> {
        let has = |name: &str| self.weights.has(name);
        let values = head.read_decoder(config, has, |name, shape| self.numbers(name, shape))?;
        let form = Form {
            precision: Precision::F32,
            ..self.form(None, Format::F32)
        };
        self.pack(form, &values)
    }

    /// Query, key and value in one layer. The query has the factor of scores already, where no normalization follows.
    pub(crate) fn fused_qkv(
        &self,
        layer: &Layer,
        attention: &Attention,
    ) -> Result<Linear, LoadError> {
        let read = |name: &str, shape: &[usize]| self.numbers(name, shape);
        let values = layer.read_qkv(attention, query_scale(attention), read)?;
        self.pack(self.form(None, operands(self.activations)), &values)
    }

    /// Query and key in one layer, which keeps f32.
    pub(crate) fn query_key(
        &self,
        layer: &Layer,
        attention: &Attention,
    ) -> Result<Linear, LoadError> {
        let read = |name: &str, shape: &[usize]| self.numbers(name, shape);
        let values = layer.read_query_key(attention, query_scale(attention), read)?;
        let form = Form {
            precision: Precision::F32,
            ..self.form(None, Format::F32)
        };
        self.pack(form, &values)
    }

    /// The normalizations of queries and keys, each with its columns.
    pub(crate) fn query_norms(
        &self,
        layer: &Layer,
        attention: &Attention,
    ) -> Result<Vec<(Range<usize>, Norm)>, LoadError> {
        let (queries, keys) = (attention.query_width(), attention.key_width());
        let read = |name: &str, shape: &[usize]| self.numbers(name, shape);
        let mut norms = Vec::new();
        if let Some(norm) = &layer.query_norm
            && let Some(values) = layer.read_query_norm(query_scale(attention), read)?
        {
            norms.push((0..queries, of_values(norm, values)));
        }
        if let Some(norm) = &layer.key_norm {
            norms.push((queries..queries + keys, self.norm(norm)?));
        }
        Ok(norms)
    }

    fn form(&self, activation: Option<Activation>, dst: Format) -> Form {
        Form {
            precision: self.precision,
            activation,
            dst,
            threads: self.threads,
        }
    }

    /// A layer of these numbers, in the model's precision.
    pub(crate) fn packed(
        &self,
        values: &LinearValues,
        activation: Option<Activation>,
        dst: Format,
    ) -> Result<Linear, LoadError> {
        self.pack(self.form(activation, dst), values)
    }

    fn pack(&self, form: Form, values: &LinearValues) -> Result<Linear, LoadError> {
        let packed = Linear::pack(self.library, form, &values.weight, &values.bias);
        Ok(packed?)
    }

    /// Reads a normalization.
    pub(crate) fn norm(&self, norm: &encoder::Norm) -> Result<Norm, LoadError> {
        let values = norm.read(|name, shape| self.numbers(name, shape))?;
        Ok(of_values(norm, values))
    }

    /// Reads a normalization, if there is one.
    pub(crate) fn norm_if_any(
        &self,
        norm: Option<&encoder::Norm>,
    ) -> Result<Option<Norm>, LoadError> {
        norm.map(|norm| self.norm(norm)).transpose()
    }

    /// Reads a tensor of this shape, as f32.
    pub(crate) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        Ok(self.weights.values(name, shape)?)
    }

    /// The vectors of tokens, of which there are many, multiplied by a factor, in the model's precision.
    pub(crate) fn table(
        &self,
        table: &encoder::Table,
        width: usize,
        factor: f32,
    ) -> Result<Table, LoadError> {
        let encoder::Table { name, rows } = table;
        let mut packed = Table::zeros(self.precision, *rows, width);
        let mut scaled = Vec::new();
        self.weights
            .with_rows(name, [*rows, width], |first, values| {
                if factor == 1.0 {
                    packed.put(first, values, width);
                    return;
                }
                scaled.clear();
                scaled.extend(values.iter().map(|x| x * factor));
                packed.put(first, &scaled, width);
            })?;
        Ok(packed)
    }
}

/// The factor of scores, in bits: the softmax takes powers of 2.
fn query_scale(attention: &Attention) -> f32 {
    std::f32::consts::LOG2_E * attention.scale
}

fn of_values(norm: &encoder::Norm, values: NormValues) -> Norm {
    Norm {
        kind: norm.kind,
        weight: values.weight,
        bias: values.bias,
        eps: norm.eps,
    }
}
