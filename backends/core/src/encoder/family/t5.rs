//! The encoder of T5: a learned bias of attention by distance, and no other positions.
//!
//! Source: transformers 5.24, `modeling_t5.py`, `T5EncoderModel`.

use super::super::fields::Fields;
use crate::encoder::{
    Activation, Attention, DistanceBias, Embeddings, EncoderConfig, FeedForward, Gate, Layer,
    Linear, Norm, Norms, Reach, Table,
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    /// Numbers of a token's queries.
    inner: usize,
    feed_forward: FeedForward,
    eps: f32,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    fields.only_flag("is_decoder", false)?;
    let width = fields.size("d_model")?;
    let eps = fields.eps_or("layer_norm_epsilon", 1e-6)?;
    let (activation, gate) = match fields.word_or("feed_forward_proj", "relu")? {
        "gated-gelu" => (Activation::GeluTanh, Some(Gate::First)),
        "gated-silu" => (Activation::Silu, Some(Gate::First)),
        _ => (fields.activation_or("feed_forward_proj", "relu")?, None),
    };
    // What the reference writes itself wins over the word that it makes them of.
    let activation = match fields.get("dense_act_fn") {
        Some(_) => fields.activation_or("dense_act_fn", "relu")?,
        None => activation,
    };
    let gate = match fields.flag_or("is_gated_act", gate.is_some())? {
        true => Some(Gate::First),
        false => None,
    };
    let feed_forward = FeedForward {
        size: fields.size("d_ff")?,
        activation,
        gate,
    };
    let bias = DistanceBias::Buckets {
        table: Table {
            name: "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight".into(),
            rows: buckets(fields)?,
        },
        max_distance: fields.size_or("relative_attention_max_distance", 128)?,
    };
    let attention = Attention {
        // T5 has no factor: it is part of its weights.
        scale: 1.0,
        bias: Some(bias),
        ..Attention::of_heads(fields.size("num_heads")?, fields.size_or("d_kv", 64)?)
    };
    let shared = Shared {
        width,
        inner: attention.query_width(),
        feed_forward,
        eps,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        // The encoder has no limit of its own: this one is what it was trained with, and what its tokenizer says.
        max_sequence_tokens: fields.size_or("n_positions", 512)?,
        embeddings: Embeddings {
            words: Table {
                name: "shared.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: 1.0,
            positions: None,
            segments: None,
            norm: None,
            projection: None,
        },
        layers: (0..fields.layers("num_layers")?)
            .map(|i| layer(&shared, i))
            .collect(),
        attention,
        feed_forward,
        final_norm: Some(Norm::rms("encoder.final_layer_norm", width, eps)),
        classifier: None,
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

/// The ranges of distances.
fn buckets(fields: &Fields<'_>) -> Result<usize, String> {
    let n = fields.size_or("relative_attention_num_buckets", 32)?;
    let most = fields.size_or("relative_attention_max_distance", 128)?;
    match n >= 4 && n.is_multiple_of(4) && most > n / 4 {
        true => Ok(n),
        false => Err(format!(
            "relative_attention_num_buckets is {n} and relative_attention_max_distance {most}, expected a multiple of 4, and a \
             distance above a quarter of it"
        )),
    }
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width,
        inner,
        feed_forward,
        eps,
    } = *shared;
    let at = |name: &str| format!("encoder.block.{i}.layer.{name}");
    let before = |name: &str| Norms::Before {
        before: Some(Norm::rms(at(name), width, eps)),
        after: None,
    };
    let parts = ["q", "k", "v"].map(|part| (at(&format!("0.SelfAttention.{part}")), inner));
    let dense = |name: &str| at(&format!("1.DenseReluDense.{name}"));
    let size = feed_forward.size;
    Layer {
        attention_norms: before("0.layer_norm"),
        qkv: Linear::stacked(parts, width, false),
        query_norm: None,
        key_norm: None,
        rotary: None,
        reach: Reach::default(),
        out: Linear::of(at("0.SelfAttention.o"), [width, inner], false),
        feed_forward_norms: before("1.layer_norm"),
        up: match feed_forward.gate {
            Some(_) => {
                let ups = ["wi_0", "wi_1"].map(|part| (dense(part), size));
                Linear::stacked(ups, width, false)
            }
            None => Linear::of(dense("wi"), [size, width], false),
        },
        down: Linear::of(dense("wo"), [width, size], false),
        experts: None,
    }
}
