//! Qwen2, Qwen3 and Mistral, decoders whose last token's vector is the embedding; and EuroBERT, which has their layers and whose
//! tokens see all others.
//!
//! Source: transformers 5.24, `modeling_qwen3.py`, `modeling_qwen2.py`, `modeling_mistral.py` and `modeling_eurobert.py`.

use std::sync::Arc;

use super::{super::fields::Fields, rope};
use crate::{
    Pooling,
    encoder::{
        Activation, Attention, Classifier, Embeddings, EncoderConfig, FeedForward, Gate, Layer,
        Linear, Norm, Norms, Reach, Rotary, Table,
    },
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    attention: Attention,
    eps: f32,
    /// True where queries, keys and values have a bias, and where the layer behind attention has one.
    biases: [bool; 2],
    has_head_norms: bool,
    rotary: Arc<Rotary>,
    /// The window of each layer; none: it sees all tokens.
    windows: Vec<Option<usize>>,
    is_causal: bool,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    let width = fields.size("hidden_size")?;
    let n_heads = fields.size("num_attention_heads")?;
    let usual_head = match model_type {
        "qwen3" => 128,
        _ => super::head_size(width, n_heads)?,
    };
    let head_size = fields.size_or("head_dim", usual_head)?;
    let attention = Attention {
        n_key_heads: fields.size_or("num_key_value_heads", n_heads)?,
        ..Attention::of_heads(n_heads, head_size)
    };
    let feed_forward = FeedForward {
        size: fields.size("intermediate_size")?,
        activation: fields.activation_or("hidden_act", "silu")?,
        gate: Some(Gate::First),
    };
    let is_eurobert = model_type == "eurobert";
    if is_eurobert {
        fields.only_flag("mlp_bias", false)?;
    }
    let eps = fields.eps_or("rms_norm_eps", if is_eurobert { 1e-5 } else { 1e-6 })?;
    let n_layers = fields.layers("num_hidden_layers")?;
    let shared = Shared {
        width,
        size: feed_forward.size,
        attention,
        eps,
        biases: match model_type {
            "qwen3" | "eurobert" => [fields.flag_or("attention_bias", false)?; 2],
            "qwen2" => [true, false],
            _ => [false; 2],
        },
        has_head_norms: model_type == "qwen3",
        rotary: Arc::new(rope::rotary(fields, 10_000.0, head_size)?),
        windows: windows(fields, model_type, n_layers)?,
        // Embedders made of Qwen2 say so where their tokens see those behind them.
        is_causal: !is_eurobert && fields.flag_or("is_causal", true)?,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        // Sequences are packed: only an ONNX file is ever given one.
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: fields.size_or("max_position_embeddings", 32_768)?,
        embeddings: Embeddings {
            words: Table {
                name: "embed_tokens.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: 1.0,
            positions: None,
            segments: None,
            norm: None,
            projection: None,
        },
        feed_forward,
        layers: (0..n_layers).map(|i| layer(&shared, i)).collect(),
        attention: shared.attention,
        final_norm: Some(Norm::rms("norm", width, eps)),
        classifier: match is_eurobert {
            true => classifier_of_eurobert(fields, width)?,
            false => Some(Classifier {
                dense: None,
                norm: None,
                score: Linear::of("score", [1, width], false).into(),
                pooling: Pooling::LAST,
            }),
        },
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

/// None where each token has a logit of its own, and the mean of these counts.
fn classifier_of_eurobert(fields: &Fields<'_>, width: usize) -> Result<Option<Classifier>, String> {
    let pooling = match fields.word_or("classifier_pooling", "late")? {
        "bos" => Pooling::CLS,
        "mean" => Pooling::MEAN,
        _ => return Ok(None),
    };
    Ok(Some(Classifier {
        dense: Some((Linear::of("dense", [width, width], true), Activation::Gelu)),
        norm: None,
        score: Linear::of("classifier", [1, width], true).into(),
        pooling,
    }))
}

/// The window of each layer, in tokens up to a token itself.
fn windows(
    fields: &Fields<'_>,
    model_type: &str,
    n_layers: usize,
) -> Result<Vec<Option<usize>>, String> {
    let is_used = model_type == "mistral" || fields.flag_or("use_sliding_window", false)?;
    // Null is another thing than nothing: then there is no window.
    let window = match fields.size_if_any("sliding_window")? {
        None if fields.is_written("sliding_window") => None,
        None => Some(4096),
        window => window,
    };
    let Some(window) = window.filter(|_| is_used) else {
        return Ok(vec![None; n_layers]);
    };
    if model_type == "mistral" {
        return Ok(vec![Some(window); n_layers]);
    }
    let first = fields.number_or("max_window_layers", 28.0)?;
    let has_window = match fields.windows_by_type(n_layers)? {
        Some(by_type) => by_type,
        None => (0..n_layers).map(|i| i as f64 >= first).collect(),
    };
    let windows = has_window.into_iter();
    Ok(windows.map(|has| has.then_some(window)).collect())
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width,
        size,
        ref attention,
        eps,
        biases: [has_bias, has_out_bias],
        has_head_norms,
        ..
    } = *shared;
    let at = |name: &str| format!("layers.{i}.{name}");
    let before = |name: &str| Norms::Before {
        before: Some(Norm::rms(at(name), width, eps)),
        after: None,
    };
    let (queries, keys) = (attention.query_width(), attention.key_width());
    let parts = [("q", queries), ("k", keys), ("v", keys)]
        .map(|(part, outer)| (at(&format!("self_attn.{part}_proj")), outer));
    let head_norm =
        |name: &str| has_head_norms.then(|| Norm::rms(at(name), attention.head_size, eps));
    let ups = ["gate", "up"].map(|part| (at(&format!("mlp.{part}_proj")), size));
    Layer {
        attention_norms: before("input_layernorm"),
        qkv: Linear::stacked(parts, width, has_bias),
        query_norm: head_norm("self_attn.q_norm"),
        key_norm: head_norm("self_attn.k_norm"),
        rotary: Some(Arc::clone(&shared.rotary)),
        reach: match (shared.windows[i], shared.is_causal) {
            (window, true) => Reach {
                before: window.map(|window| window - 1),
                after: Some(0),
            },
            (window, false) => Reach {
                before: window,
                after: window,
            },
        },
        out: Linear::of(at("self_attn.o_proj"), [width, queries], has_out_bias),
        feed_forward_norms: before("post_attention_layernorm"),
        up: Linear::stacked(ups, width, false),
        down: Linear::of(at("mlp.down_proj"), [width, size], false),
        experts: None,
    }
}
