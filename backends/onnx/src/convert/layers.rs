//! The graph of a BERT-like encoder.
//!
//! Source: transformers 5.23, `modeling_bert.py` and `modeling_xlm_roberta.py`.

use embedgate_core::{
    EncoderConfig,
    encoder::{Activation, Architecture},
};

use super::{
    ConvertError,
    attributes::{float, int, ints},
    graph::Builder,
    products::{computed, gathered, linear_in},
    tensors::Store,
};
use crate::proto::element;

type Result<T> = std::result::Result<T, ConvertError>;

/// Constants that every layer uses.
struct Constants {
    /// `(batch, length, heads, head)` from `(batch, length, width)`.
    by_head: String,
    /// `(batch, length, width)` from `(batch, length, heads, head)`.
    joined: String,
    /// Whether the batch has no padding. A scalar.
    unpadded: String,
    /// Added to the scores: 0 for tokens, the lowest f32 for padding. Shape `(batch, 1, 1, length)`.
    mask: String,
}

/// Adds inputs and encoder; returns the value `last_hidden_state`, of shape `(batch, length, width)`.
pub(super) fn encoder(b: &mut Builder<'_, '_>, config: &EncoderConfig) -> Result<String> {
    let ids = b.input("input_ids");
    let mask = b.input("attention_mask");
    let mut hidden = embeddings(b, config, &ids)?;
    let constants = Constants {
        by_head: b.tensors.ints(
            "shape_by_head",
            &[0, 0, config.n_heads as i64, config.head_size() as i64],
            &[4],
        ),
        joined: b
            .tensors
            .ints("shape_joined", &[0, 0, config.hidden_size as i64], &[3]),
        unpadded: unpadded(b, &mask),
        mask: score_mask(b, &mask),
    };
    for i in 0..config.n_layers {
        let name = if i + 1 == config.n_layers {
            "last_hidden_state".into()
        } else {
            format!("layer_{i}")
        };
        hidden = layer(b, config, i, &hidden, &constants, &name)?;
    }
    Ok(hidden)
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
    normalize(b, config, "embeddings.LayerNorm", &sum, "embeddings")
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

/// Position ids: `0..length` for BERT; for RoBERTa counted from `padding_idx + 1` over what is not padding.
fn positions(b: &mut Builder<'_, '_>, config: &EncoderConfig, ids: &str) -> String {
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

fn unpadded(b: &mut Builder<'_, '_>, mask: &str) -> String {
    let least = b.node("ReduceMin", &[mask], vec![int("keepdims", 0)]);
    b.node("Cast", &[&least], vec![int("to", element::BOOL.into())])
}

fn score_mask(b: &mut Builder<'_, '_>, mask: &str) -> String {
    let axes = b.tensors.ints("mask_axes", &[1, 2], &[2]);
    let mask = b.node("Unsqueeze", &[mask, &axes], vec![]);
    let mask = b.node("Cast", &[&mask], vec![int("to", element::FLOAT.into())]);
    let one = b.tensors.float("one_f32", 1.0);
    let padding = b.node("Sub", &[&one, &mask], vec![]);
    let lowest = b.tensors.float("lowest_f32", f32::MIN);
    b.node("Mul", &[&padding, &lowest], vec![])
}

fn layer(
    b: &mut Builder<'_, '_>,
    config: &EncoderConfig,
    i: usize,
    hidden: &str,
    constants: &Constants,
    name: &str,
) -> Result<String> {
    let (width, ffn) = (config.hidden_size, config.intermediate_size);
    let at = |part: &str| format!("encoder.layer.{i}.{part}");
    let context = attention(b, config, i, hidden, constants)?;
    let out = linear_in(b, &at("attention.output.dense"), &context, [width, width])?;
    let sum = b.node("Add", &[&out, hidden], vec![]);
    let attended = normalize(
        b,
        config,
        &at("attention.output.LayerNorm"),
        &sum,
        &format!("attended_{i}"),
    )?;

    let wide = linear_in(b, &at("intermediate.dense"), &attended, [width, ffn])?;
    let wide = activate(b, config.activation, &wide);
    let out = linear_in(b, &at("output.dense"), &wide, [ffn, width])?;
    let sum = b.node("Add", &[&out, &attended], vec![]);
    normalize(b, config, &at("output.LayerNorm"), &sum, name)
}

/// Attention in one of two ways: without padding by ONNX Runtime's own operator, which never holds all scores (for 8192
/// tokens and 16 heads they take 4 GiB); else by plain ones with the mask, for short sequences that share a call.
fn attention(
    b: &mut Builder<'_, '_>,
    config: &EncoderConfig,
    i: usize,
    hidden: &str,
    constants: &Constants,
) -> Result<String> {
    let (weight, bias) = fused_qkv(b, config, i)?;
    let name = format!("encoder.layer.{i}.attention.self.qkv");
    let qkv = computed(b, &name, hidden, weight, &bias)?;
    let [query, key, value] = b.split(&qkv);
    let flash = |b: &mut Builder<'_, '_>| {
        let attributes = vec![int("num_heads", config.n_heads as i64), float("scale", 1.0)];
        b.contributed("MultiHeadAttention", &[&query, &key, &value], attributes)
    };
    let masked = |b: &mut Builder<'_, '_>| masked_attention(b, [&query, &key, &value], constants);
    Ok(b.either(&constants.unpadded, config.hidden_size, flash, masked))
}

fn masked_attention(
    b: &mut Builder<'_, '_>,
    [query, key, value]: [&str; 3],
    constants: &Constants,
) -> String {
    let mut by_head = |x: &str, order: &[i64]| {
        let split = b.node("Reshape", &[x, &constants.by_head], vec![]);
        b.node("Transpose", &[&split], vec![ints("perm", order)])
    };
    let query = by_head(query, &[0, 2, 1, 3]);
    let key = by_head(key, &[0, 2, 3, 1]);
    let value = by_head(value, &[0, 2, 1, 3]);
    let scores = b.node("MatMul", &[&query, &key], vec![]);
    let scores = b.node("Add", &[&scores, &constants.mask], vec![]);
    let shares = b.node("Softmax", &[&scores], vec![int("axis", -1)]);
    let context = b.node("MatMul", &[&shares, &value], vec![]);
    let context = b.node("Transpose", &[&context], vec![ints("perm", &[0, 2, 1, 3])]);
    b.node("Reshape", &[&context, &constants.joined], vec![])
}

/// Weights of query, key and value, `(3 * width, width)`, and their biases; the query is divided by the square root of the
/// head size.
fn fused_qkv(
    b: &mut Builder<'_, '_>,
    config: &EncoderConfig,
    i: usize,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let width = config.hidden_size;
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    let query_scale = 1.0 / (config.head_size() as f32).sqrt();
    for (part, scale) in [("query", query_scale), ("key", 1.0), ("value", 1.0)] {
        let name = format!("encoder.layer.{i}.attention.self.{part}");
        weight.extend(
            b.tensors
                .read(&format!("{name}.weight"), &[width, width])?
                .iter()
                .map(|w| w * scale),
        );
        bias.extend(
            b.tensors
                .read(&format!("{name}.bias"), &[width])?
                .iter()
                .map(|w| w * scale),
        );
    }
    Ok((weight, bias))
}

fn normalize(
    b: &mut Builder<'_, '_>,
    config: &EncoderConfig,
    weights: &str,
    x: &str,
    name: &str,
) -> Result<String> {
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
