//! The forward pass of a BERT-like encoder over packed sequences.
//!
//! Tensors are 2-dimensional, `(tokens of all sequences, width)`. Only attention knows where a sequence begins and ends.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

use candle_core::{Result, Tensor};
use embedgate_core::{EncoderConfig, TokenBatch};
use embedgate_weights::{Weights, WeightsError};

use crate::{
    attention::attend,
    linear::{Linear, put, tensor},
    rows::{Place, Rows},
};

pub(crate) struct Encoder {
    config: EncoderConfig,
    place: Place,
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
        place: &Place,
    ) -> std::result::Result<Self, WeightsError> {
        let width = config.hidden_size;
        let table = |name: &str, rows| {
            tensor(
                weights,
                &format!("embeddings.{name}_embeddings.weight"),
                &[rows, width],
                place,
            )
        };
        let layers = (0..config.n_layers)
            .map(|i| Layer::load(config, weights, i, place))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            word: table("word", config.vocabulary_size)?,
            position: table("position", config.max_position_embeddings)?,
            segment: table("token_type", config.type_vocabulary_size)?,
            norm: norm_rows(weights, "embeddings.LayerNorm", width, None, place)?,
            layers,
            place: place.clone(),
            config: config.clone(),
        })
    }

    /// Returns the last hidden states of all tokens, shape `(tokens, hidden_size)`.
    pub(crate) fn forward(&self, batch: &TokenBatch) -> Result<Tensor> {
        let mut hidden = self.embed_tokens(batch)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, batch.offsets(), &self.config, self.place.rows)?;
        }
        Ok(hidden)
    }

    fn embed_tokens(&self, batch: &TokenBatch) -> Result<Tensor> {
        let (device, rows) = (&self.place.device, self.place.rows);
        let ids = Tensor::new(batch.ids(), device)?;
        let positions: Vec<u32> = batch
            .iter()
            .flat_map(|s| self.config.position_ids(s.ids))
            .collect();
        let positions = Tensor::new(positions, device)?;
        let segments = Tensor::new(batch.type_ids(), device)?;
        let words = self.word.index_select(&ids, 0)?;
        let sum = rows.add(words, &self.position.index_select(&positions, 0)?)?;
        let segments = self.segment.index_select(&segments, 0)?;
        rows.add_norm(sum, &segments, &self.norm, self.config.layer_norm_eps)
    }
}

impl Layer {
    fn load(
        config: &EncoderConfig,
        weights: &Weights,
        i: usize,
        place: &Place,
    ) -> std::result::Result<Self, WeightsError> {
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        let attention_out =
            Linear::load(weights, &at("attention.output.dense"), width, width, place)?;
        let down = Linear::load(weights, &at("output.dense"), width, ffn, place)?;
        Ok(Self {
            qkv: fused_qkv(config, weights, i, place)?,
            attention_norm: norm_rows(
                weights,
                &at("attention.output.LayerNorm"),
                width,
                Some(&attention_out.bias),
                place,
            )?,
            output_norm: norm_rows(
                weights,
                &at("output.LayerNorm"),
                width,
                Some(&down.bias),
                place,
            )?,
            up: Linear::load(weights, &at("intermediate.dense"), ffn, width, place)?,
            attention_out,
            down,
        })
    }

    fn forward(
        &self,
        hidden: &Tensor,
        offsets: &[usize],
        config: &EncoderConfig,
        rows: Rows,
    ) -> Result<Tensor> {
        let eps = config.layer_norm_eps;
        let contexts = attend(&self.qkv.forward(hidden)?, offsets, config.n_heads, rows)?;
        let attended = self.attention_out.product(&contexts)?;
        let attended = rows.add_norm(attended, hidden, &self.attention_norm, eps)?;
        let wide = self.up.product(&attended)?;
        let wide = rows.activate(wide, &self.up.bias, config.activation)?;
        rows.add_norm(self.down.product(&wide)?, &attended, &self.output_norm, eps)
    }
}

fn fused_qkv(
    config: &EncoderConfig,
    weights: &Weights,
    i: usize,
    place: &Place,
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
            weight: put(weight, &[3 * width, width], place)?,
            bias: put(bias, &[3 * width], place)?,
            rows: place.rows,
        })
    };
    fuse().map_err(|e| WeightsError::Damaged {
        path: format!("encoder.layer.{i}").into(),
        problem: e.to_string(),
    })
}

/// Stacks what a normalization needs: a bias (or zeros), the normalization's weight, its bias. Shape `(3, width)`.
fn norm_rows(
    weights: &Weights,
    name: &str,
    width: usize,
    bias: Option<&Tensor>,
    place: &Place,
) -> std::result::Result<Tensor, WeightsError> {
    let gamma = tensor(weights, &format!("{name}.weight"), &[width], place)?;
    let beta = tensor(weights, &format!("{name}.bias"), &[width], place)?;
    let stack = || match bias {
        Some(bias) => Tensor::stack(&[bias, &gamma, &beta], 0),
        None => Tensor::stack(&[&gamma.zeros_like()?, &gamma, &beta], 0),
    };
    stack().map_err(|e| WeightsError::Damaged {
        path: name.into(),
        problem: e.to_string(),
    })
}
