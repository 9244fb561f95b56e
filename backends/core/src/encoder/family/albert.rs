//! ALBERT: BERT whose layers share their weights, with narrow embeddings.
//!
//! Source: transformers 5.24, `modeling_albert.py`.

use super::{super::fields::Fields, head_size};
use crate::{
    Pooling,
    encoder::{
        Activation, Attention, Classifier, Embeddings, EncoderConfig, FeedForward, Layer, Linear,
        Norm, Norms, PositionTable, Reach, Table,
    },
};

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    fields.only_word("position_embedding_type", &["absolute"])?;
    if fields.size_or("num_hidden_groups", 1)? != 1 || fields.size_or("inner_group_num", 1)? != 1 {
        return Err("num_hidden_groups or inner_group_num is not 1, supported is 1".into());
    }
    let width = fields.size_or("hidden_size", 4096)?;
    let embedding = fields.size_or("embedding_size", 128)?;
    let n_heads = fields.size_or("num_attention_heads", 64)?;
    let eps = fields.eps_or("layer_norm_eps", 1e-12)?;
    let feed_forward = FeedForward {
        size: fields.size_or("intermediate_size", 16_384)?,
        activation: fields.activation_or("hidden_act", "gelu_new")?,
        gate: None,
    };
    let table = |name: &str, rows| Table {
        name: format!("embeddings.{name}_embeddings.weight"),
        rows,
    };
    let positions = PositionTable {
        table: table("position", fields.size_or("max_position_embeddings", 512)?),
        first: 0,
        uncounted: None,
    };
    let layer = layer(width, feed_forward.size, eps);
    let n_layers = match fields.get("num_hidden_layers") {
        Some(_) => fields.layers("num_hidden_layers")?,
        None => 12,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: positions.max_sequence_tokens(),
        embeddings: Embeddings {
            words: table("word", fields.size_or("vocab_size", 30_000)?),
            width: embedding,
            factor: 1.0,
            positions: Some(positions),
            segments: Some(table("token_type", fields.size_or("type_vocab_size", 2)?)),
            norm: Some(Norm::layer("embeddings.LayerNorm", embedding, eps)),
            projection: Some(Linear::of(
                "encoder.embedding_hidden_mapping_in",
                [width, embedding],
                true,
            )),
        },
        attention: Attention::of_heads(n_heads, head_size(width, n_heads)?),
        feed_forward,
        layers: vec![layer; n_layers],
        final_norm: None,
        classifier: Some(Classifier {
            dense: Some((Linear::of("pooler", [width, width], true), Activation::Tanh)),
            norm: None,
            score: Linear::of("classifier", [1, width], true).into(),
            pooling: Pooling::CLS,
        }),
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

/// The layer that all are.
fn layer(width: usize, size: usize, eps: f32) -> Layer {
    let at = |name: &str| format!("encoder.albert_layer_groups.0.albert_layers.0.{name}");
    let linear = |name: &str, shape| Linear::of(at(name), shape, true);
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, eps));
    let parts = ["query", "key", "value"].map(|part| (at(&format!("attention.{part}")), width));
    Layer {
        attention_norms: norm("attention.LayerNorm"),
        qkv: Linear::stacked(parts, width, true),
        query_norm: None,
        key_norm: None,
        rotary: None,
        reach: Reach::default(),
        out: linear("attention.dense", [width, width]),
        feed_forward_norms: norm("full_layer_layer_norm"),
        up: linear("ffn", [size, width]),
        down: linear("ffn_output", [width, size]),
        experts: None,
    }
}
