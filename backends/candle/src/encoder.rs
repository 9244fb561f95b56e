//! The forward pass of a BERT-like encoder over packed sequences.
//!
//! Tensors are 2-dimensional, `(tokens of all sequences, width)`. Only attention knows where a sequence begins and ends.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

use candle_core::{Device, Result, Tensor};
use embedgate_core::{EncoderConfig, TokenBatch};
use embedgate_weights::{Weights, WeightsError};

use crate::{
    attention::attend,
    linear::{Linear, tensor},
    ops::{Add, AddNorm, BiasActivation},
};

pub(crate) struct Encoder {
    config: EncoderConfig,
    word: Tensor,
    position: Tensor,
    segment: Tensor,
    norm: Tensor,
    layers: Vec<Layer>,
}

struct Layer {
    /// Query, key and value in one product; the query is already divided by the square root of the head size.
    qkv: Linear,
    attention_out: Linear,
    /// Rows: bias of `attention_out`, then weight and bias of the normalization.
    attention_norm: Tensor,
    up: Linear,
    down: Linear,
    /// Rows: bias of `down`, then weight and bias of the normalization.
    output_norm: Tensor,
}

impl Encoder {
    pub(crate) fn load(
        config: &EncoderConfig,
        weights: &Weights,
    ) -> std::result::Result<Self, WeightsError> {
        let width = config.hidden_size;
        let table = |name: &str, rows| {
            tensor(
                weights,
                &format!("embeddings.{name}_embeddings.weight"),
                &[rows, width],
            )
        };
        let layers = (0..config.n_layers)
            .map(|i| Layer::load(config, weights, i))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            word: table("word", config.vocabulary_size)?,
            position: table("position", config.max_position_embeddings)?,
            segment: table("token_type", config.type_vocabulary_size)?,
            norm: norm_rows(weights, "embeddings.LayerNorm", width, None)?,
            layers,
            config: config.clone(),
        })
    }

    /// Returns the last hidden states of all tokens, shape `(tokens, hidden_size)`.
    pub(crate) fn forward(&self, batch: &TokenBatch) -> Result<Tensor> {
        let mut hidden = self.embed_tokens(batch)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, batch.offsets(), &self.config)?;
        }
        Ok(hidden)
    }

    fn embed_tokens(&self, batch: &TokenBatch) -> Result<Tensor> {
        let ids = Tensor::new(batch.ids(), &Device::Cpu)?;
        let positions: Vec<u32> = batch
            .iter()
            .flat_map(|s| self.config.position_ids(s.ids))
            .collect();
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let segments = Tensor::new(batch.type_ids(), &Device::Cpu)?;
        let sum = self.word.index_select(&ids, 0)?;
        sum.inplace_op2(&self.position.index_select(&positions, 0)?, &Add)?;
        let segments = self.segment.index_select(&segments, 0)?;
        sum.inplace_op3(
            &segments,
            &self.norm,
            &AddNorm {
                eps: self.config.layer_norm_eps,
            },
        )?;
        Ok(sum)
    }
}

impl Layer {
    fn load(
        config: &EncoderConfig,
        weights: &Weights,
        i: usize,
    ) -> std::result::Result<Self, WeightsError> {
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        let attention_out = Linear::load(weights, &at("attention.output.dense"), width, width)?;
        let down = Linear::load(weights, &at("output.dense"), width, ffn)?;
        Ok(Self {
            qkv: fused_qkv(config, weights, i)?,
            attention_norm: norm_rows(
                weights,
                &at("attention.output.LayerNorm"),
                width,
                Some(&attention_out.bias),
            )?,
            output_norm: norm_rows(weights, &at("output.LayerNorm"), width, Some(&down.bias))?,
            up: Linear::load(weights, &at("intermediate.dense"), ffn, width)?,
            attention_out,
            down,
        })
    }

    fn forward(
        &self,
        hidden: &Tensor,
        offsets: &[usize],
        config: &EncoderConfig,
    ) -> Result<Tensor> {
        let eps = config.layer_norm_eps;
        let qkv = self.qkv.forward(hidden)?;
        let attended = self
            .attention_out
            .product(&attend(&qkv, offsets, config.n_heads)?)?;
        attended.inplace_op3(hidden, &self.attention_norm, &AddNorm { eps })?;

        let wide = self.up.product(&attended)?;
        wide.inplace_op2(&self.up.bias, &BiasActivation(config.activation))?;
        let out = self.down.product(&wide)?;
        out.inplace_op3(&attended, &self.output_norm, &AddNorm { eps })?;
        Ok(out)
    }
}

fn fused_qkv(
    config: &EncoderConfig,
    weights: &Weights,
    i: usize,
) -> std::result::Result<Linear, WeightsError> {
    let width = config.hidden_size;
    let (mut weight, mut bias) = (
        Vec::with_capacity(3 * width * width),
        Vec::with_capacity(3 * width),
    );
    let query_scale = 1.0 / (config.head_size() as f32).sqrt();
    for (part, scale) in [("query", query_scale), ("key", 1.0), ("value", 1.0)] {
        let name = format!("encoder.layer.{i}.attention.self.{part}");
        let part_weight = weights.values(&format!("{name}.weight"), &[width, width])?;
        let part_bias = weights.values(&format!("{name}.bias"), &[width])?;
        weight.extend(part_weight.iter().map(|x| x * scale));
        bias.extend(part_bias.iter().map(|x| x * scale));
    }
    let fuse = || -> Result<Linear> {
        Ok(Linear {
            weight: Tensor::from_vec(weight, (3 * width, width), &Device::Cpu)?,
            bias: Tensor::from_vec(bias, 3 * width, &Device::Cpu)?,
        })
    };
    fuse().map_err(|e| WeightsError::Damaged {
        path: format!("encoder.layer.{i}").into(),
        problem: e.to_string(),
    })
}

/// Stacks what [`AddNorm`] needs: a bias (or zeros), the normalization's weight, its bias. Shape `(3, width)`.
fn norm_rows(
    weights: &Weights,
    name: &str,
    width: usize,
    bias: Option<&Tensor>,
) -> std::result::Result<Tensor, WeightsError> {
    let gamma = tensor(weights, &format!("{name}.weight"), &[width])?;
    let beta = tensor(weights, &format!("{name}.bias"), &[width])?;
    let stack = || match bias {
        Some(bias) => Tensor::stack(&[bias, &gamma, &beta], 0),
        None => Tensor::stack(&[&gamma.zeros_like()?, &gamma, &beta], 0),
    };
    stack().map_err(|e| WeightsError::Damaged {
        path: name.into(),
        problem: e.to_string(),
    })
}
