//! The graph of a BERT-like encoder.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`.

use embedgate_core::{
    EncoderConfig,
    encoder::{Activation, Architecture},
};

use super::{
    ConvertError, Target,
    attention::Attention,
    attributes::{float, int},
    graph::Builder,
    heads::TOKENS,
    products::{gathered, linear_in},
    tensors::Store,
};
use crate::proto::element;

type Result<T> = std::result::Result<T, ConvertError>;

/// Adds inputs and encoder; returns the last layer's value, of shape `(batch, length, width)`.
pub(super) fn encoder(b: &mut Builder<'_, '_>, config: &EncoderConfig) -> Result<String> {
    let ids = b.input("input_ids");
    let mask = b.input("attention_mask");
    let embedded = embeddings(b, config, &ids)?;
    let (attention, mut hidden) = Attention::new(b, config, &mask, embedded);
    for i in 0..config.n_layers {
        let is_output = i + 1 == config.n_layers && !attention.is_packed() && !b.variant.is_half();
        let name = match is_output {
            true => TOKENS.into(),
            false => format!("layer_{i}"),
        };
        let layer = Layer {
            config,
            attention: &attention,
            i,
        };
        hidden = layer.add(b, &hidden, &name)?;
    }
    Ok(attention.restored(b, hidden))
}

fn embeddings(b: &mut Builder<'_, '_>, config: &EncoderConfig, ids: &str) -> Result<String> {
    let width = config.hidden_size;
    let word = "embeddings.word_embeddings.weight";
    let word = gathered(b, word, [config.vocabulary_size, width], ids)?;
    let segments = segments(b, config)?;
    let sum = b.node("Add", &[&word, &segments], vec![]);
    let rows = config.max_position_embeddings;
    let position = b.tensors.weight(
        "embeddings.position_embeddings.weight",
        &[rows, width],
        Store::AsIs,
    )?;
    let numbers = positions(b, config, ids);
    let position = b.node("Gather", &[&position, &numbers], vec![]);
    let sum = b.node("Add", &[&sum, &position], vec![]);
    let norm = Norm {
        config,
        weights: "embeddings.LayerNorm",
    };
    norm.add(b, &sum, "embeddings")
}

/// A model with one segment adds its only row to every token and takes no `token_type_ids`.
fn segments(b: &mut Builder<'_, '_>, config: &EncoderConfig) -> Result<String> {
    let rows = config.type_vocabulary_size;
    let table = b.tensors.weight(
        "embeddings.token_type_embeddings.weight",
        &[rows, config.hidden_size],
        Store::AsIs,
    )?;
    if rows == 1 {
        return Ok(table);
    }
    let ids = b.input("token_type_ids");
    Ok(b.node("Gather", &[&table, &ids], vec![]))
}

/// Position ids: `0..length` for BERT; for RoBERTa counted from `padding_idx + 1` over what is not padding. An input where
/// the processor would have to count.
fn positions(b: &mut Builder<'_, '_>, config: &EncoderConfig, ids: &str) -> String {
    if b.variant.target != Target::Cpu {
        return b.input("position_ids");
    }
    let one = b.tensors.ints("one", &[1], &[]);
    match config.architecture {
        Architecture::Bert => {
            let shape = b.node("Shape", &[ids], vec![]);
            let zero = b.tensors.ints("zero", &[0], &[]);
            let length = b.node("Gather", &[&shape, &one], vec![int("axis", 0)]);
            b.node("Range", &[&zero, &length, &one], vec![])
        }
        Architecture::Roberta => {
            let pad = b
                .tensors
                .ints("padding_idx", &[i64::from(config.pad_token_id)], &[]);
            let is_pad = b.node("Equal", &[ids, &pad], vec![]);
            let is_token = b.node("Not", &[&is_pad], vec![]);
            let is_token = b.node("Cast", &[&is_token], vec![int("to", element::INT64.into())]);
            let count = b.node("CumSum", &[&is_token, &one], vec![]);
            let count = b.node("Mul", &[&count, &is_token], vec![]);
            b.node("Add", &[&count, &pad], vec![])
        }
    }
}

/// A layer of the encoder, by its number.
struct Layer<'a> {
    config: &'a EncoderConfig,
    attention: &'a Attention,
    i: usize,
}

impl Layer<'_> {
    /// Adds the layer, whose value is called `name`.
    fn add(&self, b: &mut Builder<'_, '_>, hidden: &str, name: &str) -> Result<String> {
        let Self {
            config,
            attention,
            i,
        } = *self;
        let (width, ffn) = (config.hidden_size, config.intermediate_size);
        let at = |part: &str| format!("encoder.layer.{i}.{part}");
        let context = attention.layer(b, config, i, hidden)?;
        let out = linear_in(b, &at("attention.output.dense"), &context, [width, width])?;
        let sum = b.node("Add", &[&out, hidden], vec![]);
        let norm = Norm {
            config,
            weights: &at("attention.output.LayerNorm"),
        };
        let attended = norm.add(b, &sum, &format!("attended_{i}"))?;

        let wide = linear_in(b, &at("intermediate.dense"), &attended, [width, ffn])?;
        let wide = activate(b, config.activation, &wide);
        let out = linear_in(b, &at("output.dense"), &wide, [ffn, width])?;
        let sum = b.node("Add", &[&out, &attended], vec![]);
        let norm = Norm {
            config,
            weights: &at("output.LayerNorm"),
        };
        norm.add(b, &sum, name)
    }
}

/// A normalization, by the name of its weights.
struct Norm<'a> {
    config: &'a EncoderConfig,
    weights: &'a str,
}

impl Norm<'_> {
    /// Adds the normalization of a value; what it gives is called `name`.
    fn add(&self, b: &mut Builder<'_, '_>, x: &str, name: &str) -> Result<String> {
        let Self { config, weights } = *self;
        let width = [config.hidden_size];
        let gamma = b
            .tensors
            .weight(&format!("{weights}.weight"), &width, Store::AsIs)?;
        let beta = b
            .tensors
            .weight(&format!("{weights}.bias"), &width, Store::AsIs)?;
        let eps = float("epsilon", config.layer_norm_eps);
        Ok(b.named(
            name,
            "LayerNormalization",
            &[x, &gamma, &beta],
            vec![int("axis", -1), eps],
        ))
    }
}

/// GELU in the form that ONNX Runtime fuses: `x (1 + erf(x / sqrt 2)) / 2`.
fn activate(b: &mut Builder<'_, '_>, activation: Activation, x: &str) -> String {
    match activation {
        Activation::Relu => b.node("Relu", &[x], vec![]),
        Activation::Gelu => {
            let root = b.tensors.float("sqrt_2", std::f32::consts::SQRT_2);
            let (one, half) = (
                b.tensors.float("gelu_one", 1.0),
                b.tensors.float("gelu_half", 0.5),
            );
            let inner = b.node("Div", &[x, &root], vec![]);
            let inner = b.node("Erf", &[&inner], vec![]);
            let inner = b.node("Add", &[&inner, &one], vec![]);
            let scaled = b.node("Mul", &[x, &inner], vec![]);
            b.node("Mul", &[&scaled, &half], vec![])
        }
        Activation::GeluTanh => {
            let (one, half) = (
                b.tensors.float("gelu_one", 1.0),
                b.tensors.float("gelu_half", 0.5),
            );
            let (a, c) = (
                b.tensors.float("gelu_a", 0.797_884_6),
                b.tensors.float("gelu_c", 0.044_715),
            );
            let square = b.node("Mul", &[x, x], vec![]);
            let cube = b.node("Mul", &[&square, x], vec![]);
            let cube = b.node("Mul", &[&cube, &c], vec![]);
            let inner = b.node("Add", &[x, &cube], vec![]);
            let inner = b.node("Mul", &[&inner, &a], vec![]);
            let inner = b.node("Tanh", &[&inner], vec![]);
            let inner = b.node("Add", &[&inner, &one], vec![]);
            let scaled = b.node("Mul", &[x, &inner], vec![]);
            b.node("Mul", &[&scaled, &half], vec![])
        }
    }
}
