//! MPNet: BERT with a learned bias of attention by distance, beside its vectors of positions.
//!
//! Source: transformers 5.24, `modeling_mpnet.py`.

use super::{super::fields::Fields, head_size};
use crate::{
    Pooling,
    encoder::{
        Activation, Attention, Classifier, DistanceBias, Embeddings, EncoderConfig, FeedForward,
        Layer, Linear, Norm, Norms, PositionTable, Reach, Table,
    },
};

/// Distances from here on are one range; the reference's code has no field for it.
const MAX_DISTANCE: usize = 128;
/// The ranges; the reference's code asks for so many whatever the file says.
const N_BUCKETS: usize = 32;
/// The token without a position; the reference's code has no field for it.
const PADDING: u32 = 1;

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    if fields.size_or("relative_attention_num_buckets", N_BUCKETS)? != N_BUCKETS {
        return Err(format!(
            "relative_attention_num_buckets is set, supported is {N_BUCKETS}"
        ));
    }
    let width = fields.size("hidden_size")?;
    let n_heads = fields.size("num_attention_heads")?;
    let eps = fields.eps_or("layer_norm_eps", 1e-12)?;
    let feed_forward = FeedForward {
        size: fields.size("intermediate_size")?,
        activation: fields.activation_or("hidden_act", "gelu")?,
        gate: None,
    };
    let mut attention = Attention::of_heads(n_heads, head_size(width, n_heads)?);
    attention.bias = Some(DistanceBias::Buckets {
        table: Table {
            name: "encoder.relative_attention_bias.weight".into(),
            rows: N_BUCKETS,
        },
        max_distance: MAX_DISTANCE,
    });
    let positions = PositionTable {
        table: Table {
            name: "embeddings.position_embeddings.weight".into(),
            rows: fields.size("max_position_embeddings")?,
        },
        first: PADDING + 1,
        uncounted: Some(PADDING),
    };
    let layer = |i: usize| layer(i, width, feed_forward.size, eps);
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", PADDING)?,
        max_sequence_tokens: positions.max_sequence_tokens(),
        embeddings: Embeddings {
            words: Table {
                name: "embeddings.word_embeddings.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: 1.0,
            positions: Some(positions),
            segments: None,
            norm: Some(Norm::layer("embeddings.LayerNorm", width, eps)),
            projection: None,
        },
        attention,
        feed_forward,
        layers: (0..fields.layers("num_hidden_layers")?)
            .map(layer)
            .collect(),
        final_norm: None,
        classifier: Some(Classifier {
            dense: Some((
                Linear::of("classifier.dense", [width, width], true),
                Activation::Tanh,
            )),
            norm: None,
            score: Linear::of("classifier.out_proj", [1, width], true).into(),
            pooling: Pooling::CLS,
        }),
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

fn layer(i: usize, width: usize, size: usize, eps: f32) -> Layer {
    let at = |name: &str| format!("encoder.layer.{i}.{name}");
    let linear = |name: &str, shape| Linear::of(at(name), shape, true);
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, eps));
    let parts = ["q", "k", "v"].map(|part| (at(&format!("attention.attn.{part}")), width));
    Layer {
        attention_norms: norm("attention.LayerNorm"),
        qkv: Linear::stacked(parts, width, true),
        query_norm: None,
        key_norm: None,
        rotary: None,
        reach: Reach::default(),
        out: linear("attention.attn.o", [width, width]),
        feed_forward_norms: norm("output.LayerNorm"),
        up: linear("intermediate.dense", [size, width]),
        down: linear("output.dense", [width, size]),
        experts: None,
    }
}
