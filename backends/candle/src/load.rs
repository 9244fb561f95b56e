//! Reads a model's weights to where the model runs.

use candle_core::{Device, Result, Tensor};
use embedgate_core::encoder::{
    self, Attention, EncoderConfig, LanguageHead, Layer, Linear as Source, LinearValues,
    NormValues, Score, Table,
};
use embedgate_weights::{Weights, WeightsError};

use crate::{attention::Distances, linear::Linear, norm::Norm, rows::TensorOptions};

/// The weights of a model, and the options of the tensors that they become.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) tensor_options: &'a TensorOptions,
}

impl Loader<'_> {
    /// Reads the vectors of a table, multiplied by a factor.
    pub(crate) fn table(
        self,
        table: &Table,
        width: usize,
        factor: f32,
    ) -> std::result::Result<Tensor, WeightsError> {
        let Table { name, rows } = table;
        let mut values = self.weights.values(name, &[*rows, width])?;
        if factor != 1.0 {
            values.iter_mut().for_each(|x| *x *= factor);
        }
        self.put(values, &[*rows, width])
            .map_err(|e| damaged(name, &e))
    }

    /// Reads a linear layer.
    pub(crate) fn linear(self, source: &Source) -> std::result::Result<Linear, WeightsError> {
        let values = source.read(|name, shape| self.weights.values(name, shape))?;
        self.layer(source, values)
    }

    /// Reads queries, keys and values as one layer. Queries have the factor of scores, where no normalization follows.
    pub(crate) fn fused_qkv(
        self,
        layer: &Layer,
        attention: &Attention,
    ) -> std::result::Result<Linear, WeightsError> {
        let read = |name: &str, shape: &[usize]| self.weights.values(name, shape);
        let values = layer.read_qkv(attention, attention.scale, read)?;
        self.layer(&layer.qkv, values)
    }

    /// Reads the vectors by distance, normalized, which layers make keys and queries of; none where attention has none.
    pub(crate) fn distance_vectors(
        self,
        config: &EncoderConfig,
    ) -> std::result::Result<Option<Tensor>, WeightsError> {
        let Some(vectors) = &config.attention.vectors else {
            return Ok(None);
        };
        let table = self.table(&vectors.table, config.hidden_size, 1.0)?;
        let Some(norm) = &vectors.norm else {
            return Ok(Some(table));
        };
        let normalized = self.norm(norm, None)?.apply(&table);
        normalized
            .map(Some)
            .map_err(|e| damaged(&vectors.table.name, &e))
    }

    /// Makes the keys and queries of one layer of the vectors by distance.
    pub(crate) fn distances(
        self,
        vectors: &Tensor,
        layer: &Layer,
        attention: &Attention,
    ) -> std::result::Result<Distances, WeightsError> {
        let read = |name: &str, shape: &[usize]| self.weights.values(name, shape);
        let values = layer.read_query_key(attention, attention.scale, read)?;
        let shape = [2 * attention.query_width(), layer.qkv.inner];
        let linear = self.layer(
            &Source::of("queries and keys of distances", shape, true),
            values,
        )?;
        let made = linear.forward(vectors);
        made.and_then(|made| Distances::of(&made, attention))
            .map_err(|e| damaged(layer.qkv.name(), &e))
    }

    /// Reads the last layer of a masked language model's head.
    pub(crate) fn decoder(
        self,
        head: &LanguageHead,
        config: &EncoderConfig,
    ) -> std::result::Result<Linear, WeightsError> {
        let has = |name: &str| self.weights.has(name);
        let values =
            head.read_decoder(config, has, |name, shape| self.weights.values(name, shape))?;
        let shape = [values.bias.len(), config.hidden_size];
        self.layer(&Source::of(head.decoder.as_str(), shape, true), values)
    }

    /// Reads the layer that gives the score of a pair.
    pub(crate) fn score(self, score: &Score) -> std::result::Result<Linear, WeightsError> {
        let values = score.read(
            |name, shape| self.weights.values(name, shape),
            |name, shape, rows| self.weights.rows(name, shape, rows),
        )?;
        let shape = [1, values.weight.len()];
        self.layer(&Source::of("score", shape, true), values)
    }

    /// Puts a row of numbers to where the model runs.
    pub(crate) fn row(
        self,
        name: &str,
        values: Vec<f32>,
    ) -> std::result::Result<Tensor, WeightsError> {
        let width = values.len();
        self.put(values, &[width]).map_err(|e| damaged(name, &e))
    }

    /// A linear layer of these numbers.
    pub(crate) fn layer(
        self,
        source: &Source,
        values: LinearValues,
    ) -> std::result::Result<Linear, WeightsError> {
        let outer = source.outer();
        let put = || -> Result<Linear> {
            Ok(Linear {
                weight: self.put(values.weight, &[outer, source.inner])?,
                bias: self.put(values.bias, &[outer])?,
                rows: self.tensor_options.rows,
            })
        };
        put().map_err(|e| damaged(source.name(), &e))
    }

    /// Reads a normalization; it adds `bias` to a row first.
    pub(crate) fn norm(
        self,
        norm: &encoder::Norm,
        bias: Option<&Tensor>,
    ) -> std::result::Result<Norm, WeightsError> {
        let values = norm.read(|name, shape| self.weights.values(name, shape))?;
        self.norm_of(norm, values, bias)
    }

    /// A normalization of these numbers; it adds `bias` to a row first.
    pub(crate) fn norm_of(
        self,
        norm: &encoder::Norm,
        values: NormValues,
        bias: Option<&Tensor>,
    ) -> std::result::Result<Norm, WeightsError> {
        let width = &[norm.width];
        let stack = || -> Result<Tensor> {
            let (weight, offset) = (
                self.put(values.weight, width)?,
                self.put(values.bias, width)?,
            );
            let bias = bias.cloned().map_or_else(|| weight.zeros_like(), Ok)?;
            Tensor::stack(&[&bias, &weight, &offset], 0)
        };
        Ok(Norm {
            kind: norm.kind,
            eps: norm.eps,
            parameters: stack().map_err(|e| damaged(&norm.name, &e))?,
            rows: self.tensor_options.rows,
        })
    }

    /// Puts numbers, as many as the shape has, where the model is.
    fn put(self, values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?;
        // On the processor first: less is copied to the card.
        tensor
            .to_dtype(self.tensor_options.format)?
            .to_device(&self.tensor_options.device)
    }
}

/// The error of numbers that cannot be put where the model is.
fn damaged(name: &str, error: &candle_core::Error) -> WeightsError {
    WeightsError::Damaged {
        path: name.into(),
        problem: error.to_string(),
    }
}
