//! The forward pass of a BERT-like encoder over packed sequences.
//!
//! Tensors are 2-dimensional, `(tokens of all sequences, width)`. Only attention knows where a sequence begins and ends.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`, post-layer-norm, eval mode.

use candle_core::{Result, Tensor};
use embedgate_core::{EncoderConfig, TokenBatch};
use embedgate_weights::WeightsError;

use crate::{
    attention::attend,
    linear::Linear,
    load::Loader,
    rows::{Rows, TensorOptions},
};

/// The weights of an encoder.
pub(crate) struct Encoder {
    config: EncoderConfig,
    tensor_options: TensorOptions,
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
    /// Reads the weights.
    pub(crate) fn load(
        config: &EncoderConfig,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let width = config.hidden_size;
        let table = |name: &str, rows| {
            loader.tensor(
                &format!("embeddings.{name}_embeddings.weight"),
                &[rows, width],
            )
        };
        let layers = (0..config.n_layers)
            .map(|i| Layer::load(config, loader, i))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            word: table("word", config.vocabulary_size)?,
            position: table("position", config.max_position_embeddings)?,
            segment: table("token_type", config.type_vocabulary_size)?,
            norm: loader.norm_rows("embeddings.LayerNorm", width, None)?,
            layers,
            tensor_options: loader.tensor_options.clone(),
            config: config.clone(),
        })
    }

    /// Returns the last hidden states of all tokens, shape `(tokens, hidden_size)`.
    pub(crate) fn forward(&self, batch: &TokenBatch) -> Result<Tensor> {
        let mut hidden = self.embed_tokens(batch)?;
        for layer in &self.layers {
            hidden = layer.forward(
                &hidden,
                batch.offsets(),
                &self.config,
                self.tensor_options.rows,
            )?;
        }
        Ok(hidden)
    }

    fn embed_tokens(&self, batch: &TokenBatch) -> Result<Tensor> {
        let (device, rows) = (&self.tensor_options.device, self.tensor_options.rows);
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
        loader: Loader<'_>,
        i: usize,
    ) -> std::result::Result<Self, WeightsError> {
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{i}.{name}");
        let attention_out = loader.linear(&at("attention.output.dense"), [width, width])?;
        let down = loader.linear(&at("output.dense"), [width, ffn])?;
        Ok(Self {
            qkv: loader.fused_qkv(config, i)?,
            attention_norm: loader.norm_rows(
                &at("attention.output.LayerNorm"),
                width,
                Some(&attention_out.bias),
            )?,
            output_norm: loader.norm_rows(&at("output.LayerNorm"), width, Some(&down.bias))?,
            up: loader.linear(&at("intermediate.dense"), [ffn, width])?,
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
