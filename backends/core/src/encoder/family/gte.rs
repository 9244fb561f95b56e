//! Alibaba's `new` encoders (gte v1.5, gte-multilingual, and what others made of them): BERT with a rotation for positions
//! and a gate.
//!
//! Source: Alibaba-NLP's `modeling.py` of new-impl.

use std::sync::Arc;

use super::{super::fields::Fields, head_size, rope};
use crate::{
    Pooling,
    encoder::{
        Activation, Attention, Classifier, Embeddings, EncoderConfig, FeedForward, Gate, Layer,
        Linear, Norm, Norms, PositionTable, Reach, Rotary, Table,
    },
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    eps: f32,
    is_packed: bool,
    rotary: Option<Arc<Rotary>>,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    fields.only_word("layer_norm_type", &["layer_norm"])?;
    fields.only_word("position_embedding_type", &["absolute", "rope"])?;
    for flag in ["logn_attention_scale", "logn_attention_clip1"] {
        fields.only_flag(flag, false)?;
    }
    let width = fields.size("hidden_size")?;
    let n_heads = fields.size("num_attention_heads")?;
    let head_size = head_size(width, n_heads)?;
    let eps = fields.eps_or("layer_norm_eps", 1e-12)?;
    let feed_forward = FeedForward {
        size: fields.size("intermediate_size")?,
        activation: fields.activation_or("hidden_act", "gelu")?,
        gate: Some(Gate::Second),
    };
    let rows = fields.size("max_position_embeddings")?;
    let is_rotary = fields.word_or("position_embedding_type", "rope")? == "rope";
    let shared = Shared {
        width,
        size: feed_forward.size,
        eps,
        is_packed: fields.flag_or("pack_qkv", true)?,
        rotary: match is_rotary {
            true => Some(Arc::new(rotary(fields, model_type, head_size)?)),
            false => None,
        },
    };
    let table = |name: &str, rows| Table {
        name: format!("embeddings.{name}_embeddings.weight"),
        rows,
    };
    let positions = (!is_rotary).then(|| PositionTable {
        table: table("position", rows),
        first: 0,
        uncounted: None,
    });
    let has_segments = fields.number_or("type_vocab_size", 1.0)? > 0.0;
    let segments = match has_segments {
        true => Some(table("token_type", fields.size_or("type_vocab_size", 1)?)),
        false => None,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: rows,
        embeddings: Embeddings {
            words: table("word", fields.size("vocab_size")?),
            width,
            factor: 1.0,
            positions,
            segments,
            norm: Some(Norm::layer("embeddings.LayerNorm", width, eps)),
            projection: None,
        },
        attention: Attention::of_heads(n_heads, head_size),
        feed_forward,
        layers: (0..fields.layers("num_hidden_layers")?)
            .map(|i| layer(&shared, i))
            .collect(),
        final_norm: None,
        classifier: Some(Classifier {
            dense: Some((
                Linear::of("pooler.dense", [width, width], true),
                Activation::Tanh,
            )),
            norm: None,
            score: Linear::of("classifier", [1, width], true).into(),
            pooling: Pooling::CLS,
        }),
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

/// The rotation, with the scaling that this family calls `ntk`: it is that of the longest sequence at any length.
fn rotary(fields: &Fields<'_>, model_type: &str, head_size: usize) -> Result<Rotary, String> {
    let usual_base = if model_type == "gte" {
        160_000.0
    } else {
        10_000.0
    };
    let scaling = fields.get("rope_scaling");
    let kind = scaling.and_then(|scaling| scaling.get("type"));
    if kind.is_none_or(|kind| kind != "ntk") {
        return rope::rotary(fields, usual_base, head_size);
    }
    let number = |name: &str| scaling.and_then(|scaling| scaling.get(name)?.as_f64());
    let factor = number("factor")
        .ok_or("rope_scaling is of type \"ntk\" and has no factor, expected a number")?;
    if number("mixed_b").is_some() {
        return Err("rope_scaling has mixed_b, which is not supported".into());
    }
    if factor <= 1.0 || factor.is_nan() {
        return Err(format!(
            "rope_scaling has the factor {factor}, expected more than 1"
        ));
    }
    let base = fields.positive_or("rope_theta", usual_base)? * factor;
    let slower = factor.powf(2.0 / head_size as f64);
    Ok(Rotary::new(base, head_size).slower(slower))
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width, size, eps, ..
    } = *shared;
    let at = |name: &str| format!("encoder.layer.{i}.{name}");
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, eps));
    let qkv = match shared.is_packed {
        true => Linear::of(at("attention.qkv_proj"), [3 * width, width], true),
        false => {
            let parts = ["q", "k", "v"].map(|part| (at(&format!("attention.{part}_proj")), width));
            Linear::stacked(parts, width, true)
        }
    };
    Layer {
        attention_norms: norm("attn_ln"),
        qkv,
        query_norm: None,
        key_norm: None,
        rotary: shared.rotary.clone(),
        reach: Reach::default(),
        out: Linear::of(at("attention.o_proj"), [width, width], true),
        feed_forward_norms: norm("mlp_ln"),
        up: Linear::of(at("mlp.up_gate_proj"), [2 * size, width], false),
        down: Linear::of(at("mlp.down_proj"), [width, size], true),
        experts: None,
    }
}
