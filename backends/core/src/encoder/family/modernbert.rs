//! ModernBERT: most of its layers see a window of tokens around each token.
//!
//! Source: transformers 5.24, `modeling_modernbert.py`.

use std::sync::Arc;

use super::{super::fields::Fields, head_size, rope};
use crate::{
    Pooling,
    encoder::{
        Attention, Classifier, Embeddings, EncoderConfig, FeedForward, Gate, Layer, Linear, Norm,
        Norms, Reach, Rotary, Table,
    },
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    eps: f32,
    /// True where normalizations, attention, and the feed-forward layer have a bias.
    biases: [bool; 3],
    /// Of layers that see all tokens, and of layers with a window.
    rotaries: [Arc<Rotary>; 2],
    /// Tokens to either side of a token in layers with a window.
    window: usize,
    has_window: Vec<bool>,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    let width = fields.size("hidden_size")?;
    let n_heads = fields.size("num_attention_heads")?;
    let head_size = head_size(width, n_heads)?;
    let feed_forward = FeedForward {
        size: fields.size("intermediate_size")?,
        activation: fields.activation_or("hidden_activation", "gelu")?,
        gate: Some(Gate::First),
    };
    let n_layers = fields.layers("num_hidden_layers")?;
    let global_base = fields.number_or("global_rope_theta", 160_000.0)?;
    let local_base = fields.number_or("local_rope_theta", 10_000.0)?;
    let of_layers =
        |kind, base| rope::rotary_of_layers(fields, kind, base, head_size).map(Arc::new);
    let shared = Shared {
        width,
        size: feed_forward.size,
        eps: fields.eps_or("norm_eps", 1e-5)?,
        biases: [
            fields.flag_or("norm_bias", false)?,
            fields.flag_or("attention_bias", false)?,
            fields.flag_or("mlp_bias", false)?,
        ],
        rotaries: [
            of_layers("full_attention", ("global_rope_theta", global_base))?,
            of_layers("sliding_attention", ("local_rope_theta", local_base))?,
        ],
        window: fields.size_or("local_attention", 128)? / 2,
        has_window: windows(fields, n_layers)?,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 50_283)?,
        max_sequence_tokens: fields.size_or("max_position_embeddings", 8192)?,
        embeddings: Embeddings {
            words: Table {
                name: "embeddings.tok_embeddings.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: 1.0,
            positions: None,
            segments: None,
            norm: Some(shared.norm("embeddings.norm")),
            projection: None,
        },
        attention: Attention::of_heads(n_heads, head_size),
        feed_forward,
        layers: (0..n_layers).map(|i| layer(&shared, i)).collect(),
        final_norm: Some(shared.norm("final_norm")),
        classifier: Some(classifier(fields, &shared)?),
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

fn classifier(fields: &Fields<'_>, shared: &Shared) -> Result<Classifier, String> {
    let width = shared.width;
    fields.only_word("classifier_pooling", &["cls", "mean"])?;
    let dense = Linear::of(
        "head.dense",
        [width, width],
        fields.flag_or("classifier_bias", false)?,
    );
    Ok(Classifier {
        dense: Some((
            dense,
            fields.activation_or("classifier_activation", "gelu")?,
        )),
        norm: Some(shared.norm("head.norm")),
        score: Linear::of("classifier", [1, width], true).into(),
        pooling: match fields.word_or("classifier_pooling", "cls")? {
            "mean" => Pooling::MEAN,
            _ => Pooling::CLS,
        },
    })
}

/// Says of each layer whether it has a window.
fn windows(fields: &Fields<'_>, n_layers: usize) -> Result<Vec<bool>, String> {
    let every = fields.size_or("global_attn_every_n_layers", 3)?;
    let by_type = fields.windows_by_type(n_layers)?;
    let has_window = |i: usize| !i.is_multiple_of(every);
    Ok(by_type.unwrap_or_else(|| (0..n_layers).map(has_window).collect()))
}

impl Shared {
    fn norm(&self, name: impl Into<String>) -> Norm {
        Norm {
            has_bias: self.biases[0],
            ..Norm::layer(name, self.width, self.eps)
        }
    }
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width,
        size,
        biases: [_, of_attention, of_feed_forward],
        window,
        ..
    } = *shared;
    let at = |name: &str| format!("layers.{i}.{name}");
    let before = |norm| Norms::Before {
        before: norm,
        after: None,
    };
    let has_window = shared.has_window[i];
    let side = has_window.then_some(window);
    Layer {
        // The first layer reads what the embeddings have normalized already.
        attention_norms: before((i > 0).then(|| shared.norm(at("attn_norm")))),
        qkv: Linear::of(at("attn.Wqkv"), [3 * width, width], of_attention),
        query_norm: None,
        key_norm: None,
        rotary: Some(Arc::clone(&shared.rotaries[usize::from(has_window)])),
        reach: Reach {
            before: side,
            after: side,
        },
        out: Linear::of(at("attn.Wo"), [width, width], of_attention),
        feed_forward_norms: before(Some(shared.norm(at("mlp_norm")))),
        up: Linear::of(at("mlp.Wi"), [2 * size, width], of_feed_forward),
        down: Linear::of(at("mlp.Wo"), [width, size], of_feed_forward),
        experts: None,
    }
}
