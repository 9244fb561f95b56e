//! The graph of a BERT-like encoder.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`.

use embedgate_core::{
    EncoderConfig,
    encoder::{Activation, BertLayer, BertLike, Norm, PositionTable, Table},
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
    let bert = config.bert_like().map_err(|thing| unfit(config, thing))?;
    let ids = b.input("input_ids");
    let mask = b.input("attention_mask");
    let embedded = embeddings(b, config, &bert, &ids)?;
    let (attention, mut hidden) = Attention::new(b, config, &mask, embedded);
    for (i, layer) in bert.layers.iter().enumerate() {
        let is_last = i + 1 == bert.layers.len();
        let is_output = is_last && !attention.is_packed() && !b.variant.is_half();
        let name = match is_output {
            true => TOKENS.into(),
            false => format!("layer_{i}"),
        };
        let layer = Layer {
            config,
            attention: &attention,
            layer,
            i,
        };
        hidden = layer.add(b, &hidden, &name)?;
    }
    Ok(attention.restored(b, hidden))
}

/// The error of a model that has what no graph is written of.
pub(super) fn unfit(config: &EncoderConfig, thing: &'static str) -> ConvertError {
    let model_type = config.model_type.clone();
    ConvertError::Unfit { model_type, thing }
}

fn embeddings(
    b: &mut Builder<'_, '_>,
    config: &EncoderConfig,
    bert: &BertLike<'_>,
    ids: &str,
) -> Result<String> {
    let width = config.hidden_size;
    let Table { name, rows } = &config.embeddings.words;
    let mut sum = gathered(b, name, [*rows, width], ids)?;
    if let Some(table) = &config.embeddings.segments {
        let segments = segments(b, table, width)?;
        sum = b.node("Add", &[&sum, &segments], vec![]);
    }
    let Table { name, rows } = &bert.positions.table;
    let position = b.tensors.weight(name, &[*rows, width], Store::AsIs)?;
    let numbers = positions(b, bert.positions, ids);
    let position = b.node("Gather", &[&position, &numbers], vec![]);
    let sum = b.node("Add", &[&sum, &position], vec![]);
    normalized(b, bert.norm, &sum, "embeddings")
}

/// A model with one segment adds its only row to every token and takes no `token_type_ids`.
fn segments(b: &mut Builder<'_, '_>, table: &Table, width: usize) -> Result<String> {
    let Table { name, rows } = table;
    let table = b.tensors.weight(name, &[*rows, width], Store::AsIs)?;
    if *rows == 1 {
        return Ok(table);
    }
    let ids = b.input("token_type_ids");
    Ok(b.node("Gather", &[&table, &ids], vec![]))
}

/// Position ids: `0..length` for BERT; for RoBERTa counted from `padding_idx + 1` over what is not padding. An input where
/// the processor would have to count.
fn positions(b: &mut Builder<'_, '_>, table: &PositionTable, ids: &str) -> String {
    if b.variant.target != Target::Cpu {
        return b.input("position_ids");
    }
    let one = b.tensors.ints("one", &[1], &[]);
    match table.uncounted {
        None => {
            let shape = b.node("Shape", &[ids], vec![]);
            let zero = b.tensors.ints("zero", &[0], &[]);
            let length = b.node("Gather", &[&shape, &one], vec![int("axis", 0)]);
            b.node("Range", &[&zero, &length, &one], vec![])
        }
        Some(padding) => {
            let pad = b.tensors.ints("padding_idx", &[i64::from(padding)], &[]);
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
    layer: &'a BertLayer<'a>,
    i: usize,
}

impl Layer<'_> {
    /// Adds the layer, whose value is called `name`.
    fn add(&self, b: &mut Builder<'_, '_>, hidden: &str, name: &str) -> Result<String> {
        let Self {
            config,
            attention,
            layer,
            i,
        } = *self;
        let context = attention.layer(b, config, layer.qkv, hidden)?;
        let out = linear_in(b, layer.out, &context)?;
        let sum = b.node("Add", &[&out, hidden], vec![]);
        let attended = normalized(b, layer.attention_norm, &sum, &format!("attended_{i}"))?;

        let wide = linear_in(b, layer.up, &attended)?;
        let wide = activate(b, config.feed_forward.activation, &wide)
            .ok_or_else(|| unfit(config, "another activation"))?;
        let out = linear_in(b, layer.down, &wide)?;
        let sum = b.node("Add", &[&out, &attended], vec![]);
        normalized(b, layer.norm, &sum, name)
    }
}

/// Adds the normalization of a value; what it gives is called `name`.
fn normalized(b: &mut Builder<'_, '_>, norm: &Norm, x: &str, name: &str) -> Result<String> {
    let width = [norm.width];
    let mut read = |end: &str| {
        let name = format!("{}.{end}", norm.name);
        b.tensors.weight(&name, &width, Store::AsIs)
    };
    let (gamma, beta) = (read("weight")?, read("bias")?);
    let eps = float("epsilon", norm.eps);
    Ok(b.named(
        name,
        "LayerNormalization",
        &[x, &gamma, &beta],
        vec![int("axis", -1), eps],
    ))
}

/// GELU in the form that ONNX Runtime fuses: `x (1 + erf(x / sqrt 2)) / 2`. None where the activation is not written.
fn activate(b: &mut Builder<'_, '_>, activation: Activation, x: &str) -> Option<String> {
    Some(match activation {
        Activation::Silu => return None,
        Activation::Tanh => b.node("Tanh", &[x], vec![]),
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
    })
}
