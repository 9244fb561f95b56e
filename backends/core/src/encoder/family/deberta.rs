//! DeBERTa v2 and v3: BERT whose attention knows distances by vectors.
//!
//! Source: transformers 5.24, `modeling_deberta_v2.py`.

use super::{super::fields::Fields, head_size};
use crate::{
    Pooling,
    encoder::{
        Attention, Classifier, DistanceVectors, Embeddings, EncoderConfig, FeedForward, Layer,
        Linear, Norm, Norms, PositionTable, Reach, Table,
    },
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    eps: f32,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    if fields.number_or("conv_kernel_size", 0.0)? > 0.0 {
        return Err("conv_kernel_size is set, supported are models without a convolution".into());
    }
    let width = fields.size("hidden_size")?;
    for name in ["embedding_size", "pooler_hidden_size"] {
        let other = fields.size_or(name, width)?;
        if other != width {
            return Err(format!(
                "{name} is {other}, supported is hidden_size, which is {width}"
            ));
        }
    }
    let n_heads = fields.size("num_attention_heads")?;
    let head_size = head_size(width, n_heads)?;
    let said = fields.size_or("attention_head_size", head_size)?;
    if said != head_size {
        return Err(format!(
            "attention_head_size is {said}, supported is hidden_size / num_attention_heads, which is {head_size}"
        ));
    }
    let eps = fields.eps_or("layer_norm_eps", 1e-7)?;
    let longest = fields.size_or("max_position_embeddings", 512)?;
    let mut attention = Attention::of_heads(n_heads, head_size);
    attention.vectors = vectors(fields, (width, eps), longest)?;
    if let Some(vectors) = &attention.vectors {
        let n = 1 + u8::from(vectors.has_keys) + u8::from(vectors.has_queries);
        attention.scale = 1.0 / (head_size as f32 * f32::from(n)).sqrt();
    }
    let shared = Shared {
        width,
        size: fields.size("intermediate_size")?,
        eps,
    };
    let segments = fields.number_or("type_vocab_size", 0.0)?;
    let table = |name: &str, rows| Table {
        name: format!("embeddings.{name}.weight"),
        rows,
    };
    let positions = PositionTable {
        table: table("position_embeddings", longest),
        first: 0,
        uncounted: None,
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: longest,
        embeddings: Embeddings {
            words: table("word_embeddings", fields.size("vocab_size")?),
            width,
            factor: 1.0,
            positions: fields
                .flag_or("position_biased_input", true)?
                .then_some(positions),
            segments: match segments > 0.0 {
                true => Some(table(
                    "token_type_embeddings",
                    fields.size_or("type_vocab_size", 2)?,
                )),
                false => None,
            },
            norm: Some(Norm::layer("embeddings.LayerNorm", width, eps)),
            projection: None,
        },
        attention,
        feed_forward: FeedForward {
            size: shared.size,
            activation: fields.activation_or("hidden_act", "gelu")?,
            gate: None,
        },
        layers: (0..fields.layers("num_hidden_layers")?)
            .map(|i| layer(&shared, i))
            .collect(),
        final_norm: None,
        classifier: Some(Classifier {
            dense: Some((
                Linear::of("pooler.dense", [width, width], true),
                fields.activation_or("pooler_hidden_act", "gelu")?,
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

/// The vectors by distance; none where attention knows no distances.
fn vectors(
    fields: &Fields<'_>,
    (width, eps): (usize, f32),
    longest: usize,
) -> Result<Option<DistanceVectors>, String> {
    let kinds = kinds(fields)?;
    if !fields.flag_or("relative_attention", false)? || kinds.is_empty() {
        return Ok(None);
    }
    if let Some(kind) = kinds
        .iter()
        .find(|kind| !["c2p", "p2c"].contains(&kind.as_str()))
    {
        return Err(format!(
            "pos_att_type has \"{kind}\", supported are \"c2p\" and \"p2c\""
        ));
    }
    if !fields.flag_or("share_att_key", false)? {
        return Err("share_att_key is false, supported is true: projections of distances of their own are not".into());
    }
    // -1 stands for none.
    let count = |name: &str| -> Result<Option<usize>, String> {
        match fields.number_or(name, -1.0)? {
            n if n < 1.0 => Ok(None),
            _ => fields.size_if_any(name),
        }
    };
    let max_distance = count("max_relative_positions")?.unwrap_or(longest);
    let buckets = count("position_buckets")?;
    if let Some(n) = buckets.filter(|n| *n < 4 || max_distance <= n / 2 + 1) {
        return Err(format!(
            "position_buckets is {n} and max_relative_positions {max_distance}, expected at least 4, and distances above half of it"
        ));
    }
    let norm = fields.word_or("norm_rel_ebd", "none")?.to_lowercase();
    let has = |kind: &str| kinds.iter().any(|of| of == kind);
    Ok(Some(DistanceVectors {
        table: Table {
            name: "encoder.rel_embeddings.weight".into(),
            rows: 2 * buckets.unwrap_or(max_distance),
        },
        norm: norm
            .split('|')
            .any(|word| word.trim() == "layer_norm")
            .then(|| Norm::layer("encoder.LayerNorm", width, eps)),
        max_distance: buckets.map(|_| max_distance),
        has_keys: has("c2p"),
        has_queries: has("p2c"),
    }))
}

/// `pos_att_type`: a list, or words between `|`.
fn kinds(fields: &Fields<'_>) -> Result<Vec<String>, String> {
    let Some(value) = fields.get("pos_att_type") else {
        return Ok(Vec::new());
    };
    if let Some(text) = value.as_str() {
        let words = text.split('|').map(|word| word.trim().to_lowercase());
        return Ok(words.filter(|word| !word.is_empty()).collect());
    }
    let words = value.as_array().into_iter().flatten();
    let words: Option<Vec<String>> = words.map(|word| Some(word.as_str()?.to_owned())).collect();
    words
        .filter(|_| value.is_array())
        .ok_or_else(|| format!("pos_att_type is {value}, expected a list of strings"))
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared { width, size, eps } = *shared;
    let at = |name: &str| format!("encoder.layer.{i}.{name}");
    let linear = |name: &str, shape| Linear::of(at(name), shape, true);
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, eps));
    let parts =
        ["query", "key", "value"].map(|part| (at(&format!("attention.self.{part}_proj")), width));
    Layer {
        attention_norms: norm("attention.output.LayerNorm"),
        qkv: Linear::stacked(parts, width, true),
        query_norm: None,
        key_norm: None,
        rotary: None,
        reach: Reach::default(),
        out: linear("attention.output.dense", [width, width]),
        feed_forward_norms: norm("output.LayerNorm"),
        up: linear("intermediate.dense", [size, width]),
        down: linear("output.dense", [width, size]),
        experts: None,
    }
}
