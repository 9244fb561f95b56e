//! DistilBERT: BERT without segments, with names of its own.
//!
//! Source: transformers 5.24, `modeling_distilbert.py`.

use super::{super::fields::Fields, head_size};
use crate::{
    Pooling,
    encoder::{
        Activation, Attention, Classifier, Embeddings, EncoderConfig, FeedForward, LanguageHead,
        Layer, Linear, Norm, Norms, PositionTable, Reach, Table,
    },
};

/// The reference's code has no field for it.
const EPS: f32 = 1e-12;

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    let width = fields.size("dim")?;
    let n_heads = fields.size("n_heads")?;
    let feed_forward = FeedForward {
        size: fields.size("hidden_dim")?,
        activation: fields.activation_or("activation", "gelu")?,
        gate: None,
    };
    fields.none_of(&["pruned_heads"])?;
    let table = |name: &str, rows| Table {
        name: format!("embeddings.{name}_embeddings.weight"),
        rows,
    };
    let positions = PositionTable {
        table: table("position", fields.size("max_position_embeddings")?),
        first: 0,
        uncounted: None,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: positions.max_sequence_tokens(),
        embeddings: Embeddings {
            words: table("word", fields.size("vocab_size")?),
            width,
            factor: 1.0,
            positions: Some(positions),
            segments: None,
            norm: Some(Norm::layer("embeddings.LayerNorm", width, EPS)),
            projection: None,
        },
        attention: Attention::of_heads(n_heads, head_size(width, n_heads)?),
        feed_forward,
        layers: (0..fields.layers("n_layers")?)
            .map(|i| layer(i, width, feed_forward.size))
            .collect(),
        final_norm: None,
        classifier: Some(Classifier {
            dense: Some((
                Linear::of("pre_classifier", [width, width], true),
                Activation::Relu,
            )),
            norm: None,
            score: Linear::of("classifier", [1, width], true).into(),
            pooling: Pooling::CLS,
        }),
        language_head: Some(LanguageHead::of(
            [
                "vocab_transform",
                "vocab_layer_norm",
                "vocab_projector",
                "vocab_projector.bias",
            ],
            (width, feed_forward.activation, EPS),
        )),
        adapters: None,
        not_described: None,
    })
}

fn layer(i: usize, width: usize, size: usize) -> Layer {
    let at = |name: &str| format!("transformer.layer.{i}.{name}");
    let linear = |name: &str, shape| Linear::of(at(name), shape, true);
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, EPS));
    let parts = ["q", "k", "v"].map(|part| (at(&format!("attention.{part}_lin")), width));
    Layer {
        attention_norms: norm("sa_layer_norm"),
        qkv: Linear::stacked(parts, width, true),
        query_norm: None,
        key_norm: None,
        rotary: None,
        reach: Reach::default(),
        out: linear("attention.out_lin", [width, width]),
        feed_forward_norms: norm("output_layer_norm"),
        up: linear("ffn.lin1", [size, width]),
        down: linear("ffn.lin2", [width, size]),
        experts: None,
    }
}
