//! Gemma 3, as embeddinggemma has it: normalizations around each part, and windows in most layers.
//!
//! Source: transformers 5.24, `modeling_gemma3.py`.

use std::sync::Arc;

use super::{super::fields::Fields, rope};
use crate::encoder::{
    Attention, Embeddings, EncoderConfig, FeedForward, Gate, Layer, Linear, Norm, Norms, Reach,
    Rotary, Table, narrowed,
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    eps: f32,
    attention: Attention,
    has_bias: bool,
    /// Of layers that see all tokens, and of layers with a window.
    rotaries: [Arc<Rotary>; 2],
    reaches: [Reach; 2],
    has_window: Vec<bool>,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    fields.none_of(&["attn_logit_softcapping"])?;
    let width = fields.size("hidden_size")?;
    let n_heads = fields.size("num_attention_heads")?;
    let head_size = fields.size_or("head_dim", 256)?;
    let feed_forward = FeedForward {
        size: fields.size("intermediate_size")?,
        activation: fields.activation_or("hidden_activation", "gelu_pytorch_tanh")?,
        gate: Some(Gate::First),
    };
    let scalar = fields.positive_or("query_pre_attn_scalar", 256.0)?;
    let attention = Attention {
        n_key_heads: fields.size_or("num_key_value_heads", n_heads)?,
        scale: narrowed(1.0 / scalar.sqrt()),
        ..Attention::of_heads(n_heads, head_size)
    };
    let n_layers = fields.layers("num_hidden_layers")?;
    let is_bidirectional = fields.flag_or("use_bidirectional_attention", false)?;
    fields.only_flag("is_causal", !is_bidirectional)?;
    let eps = fields.eps_or("rms_norm_eps", 1e-6)?;
    let of_layers =
        |kind, base| rope::rotary_of_layers(fields, kind, base, head_size).map(Arc::new);
    let shared = Shared {
        width,
        size: feed_forward.size,
        eps,
        attention,
        has_bias: fields.flag_or("attention_bias", false)?,
        rotaries: [
            of_layers("full_attention", ("rope_theta", 1_000_000.0))?,
            of_layers("sliding_attention", ("rope_local_base_freq", 10_000.0))?,
        ],
        reaches: reaches(fields)?,
        has_window: windows(fields, n_layers)?,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: fields.size_or("max_position_embeddings", 2048)?,
        embeddings: Embeddings {
            words: Table {
                name: "embed_tokens.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: (width as f32).sqrt(),
            positions: None,
            segments: None,
            norm: None,
            projection: None,
        },
        feed_forward,
        layers: (0..n_layers).map(|i| layer(&shared, i)).collect(),
        attention: shared.attention,
        final_norm: Some(norm("norm".into(), width, eps)),
        classifier: None,
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

/// The tokens that a token sees in layers without a window, and in layers with one.
fn reaches(fields: &Fields<'_>) -> Result<[Reach; 2], String> {
    let window = fields.size_or("sliding_window", 4096)?;
    if !fields.flag_or("use_bidirectional_attention", false)? {
        let of = |before| Reach {
            before,
            after: Some(0),
        };
        return Ok([of(None), of(Some(window - 1))]);
    }
    // The file has the width of the whole window; what the reference keeps of it counts the token itself.
    let side = Some(window / 2);
    let both = Reach {
        before: side,
        after: side,
    };
    Ok([Reach::default(), both])
}

/// Says of each layer whether it has a window.
fn windows(fields: &Fields<'_>, n_layers: usize) -> Result<Vec<bool>, String> {
    let every = fields.size_or("sliding_window_pattern", 6)?;
    let by_type = fields.windows_by_type(n_layers)?;
    let has_window = |i: usize| !(i + 1).is_multiple_of(every);
    Ok(by_type.unwrap_or_else(|| (0..n_layers).map(has_window).collect()))
}

fn norm(name: String, width: usize, eps: f32) -> Norm {
    Norm {
        weight_offset: 1.0,
        ..Norm::rms(name, width, eps)
    }
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width,
        size,
        eps,
        ref attention,
        has_bias,
        ..
    } = *shared;
    let at = |name: &str| format!("layers.{i}.{name}");
    let around = |before: &str, after: &str| Norms::Before {
        before: Some(norm(at(before), width, eps)),
        after: Some(norm(at(after), width, eps)),
    };
    let (queries, keys) = (attention.query_width(), attention.key_width());
    let parts = [("q", queries), ("k", keys), ("v", keys)]
        .map(|(part, outer)| (at(&format!("self_attn.{part}_proj")), outer));
    let head_norm = |name: &str| Some(norm(at(name), attention.head_size, eps));
    let ups = ["gate", "up"].map(|part| (at(&format!("mlp.{part}_proj")), size));
    let kind = usize::from(shared.has_window[i]);
    Layer {
        attention_norms: around("input_layernorm", "post_attention_layernorm"),
        qkv: Linear::stacked(parts, width, has_bias),
        query_norm: head_norm("self_attn.q_norm"),
        key_norm: head_norm("self_attn.k_norm"),
        rotary: Some(Arc::clone(&shared.rotaries[kind])),
        reach: shared.reaches[kind],
        out: Linear::of(at("self_attn.o_proj"), [width, queries], has_bias),
        feed_forward_norms: around("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        up: Linear::stacked(ups, width, false),
        down: Linear::of(at("mlp.down_proj"), [width, size], false),
        experts: None,
    }
}
