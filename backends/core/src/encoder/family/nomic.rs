//! Nomic's embedders: BERT with a rotation for positions, and a gate (v1, v1.5) or a mixture of experts in every second layer (v2).
//!
//! Source: nomic-ai's `modeling_hf_nomic_bert.py` of nomic-bert-2048.

use std::sync::Arc;

use super::{super::fields::Fields, head_size};
use crate::encoder::{
    Activation, Attention, Embeddings, EncoderConfig, Experts, FeedForward, Gate, Layer, Linear,
    Norm, Norms, Reach, Rotary, RotaryPairs, Table,
};

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    eps: f32,
    has_gate: bool,
    /// Of queries, keys, values and the layer behind attention; of the feed-forward layer's first and second.
    biases: [bool; 3],
    rotary: Arc<Rotary>,
    experts: Option<OfExperts>,
}

/// The mixture of experts that some layers have.
#[derive(Clone, Copy)]
struct OfExperts {
    n: usize,
    n_chosen: usize,
    /// One of so many layers has them: the second, and each so many behind it.
    every: usize,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    for flag in ["prenorm", "parallel_block", "use_rms_norm", "causal"] {
        fields.only_flag(flag, false)?;
    }
    fields.none_of(&["norm_mlp", "rotary_head_dim"])?;
    let width = fields.size("n_embd")?;
    let n_heads = fields.size("n_head")?;
    let head_size = head_size(width, n_heads)?;
    let (activation, gate) = match fields.word_or("activation_function", "gelu")? {
        "swiglu" => (Activation::Silu, Some(Gate::Second)),
        "geglu" => (Activation::Gelu, Some(Gate::Second)),
        _ => (fields.activation_or("activation_function", "gelu")?, None),
    };
    let feed_forward = FeedForward {
        size: fields.size_or("n_inner", 4 * width)?,
        activation,
        gate,
    };
    let eps = fields.eps_or("layer_norm_epsilon", 1e-12)?;
    let shared = Shared {
        width,
        size: feed_forward.size,
        eps,
        has_gate: gate.is_some(),
        biases: [
            fields.flag_or("qkv_proj_bias", true)?,
            fields.flag_or("mlp_fc1_bias", true)?,
            fields.flag_or("mlp_fc2_bias", true)?,
        ],
        rotary: Arc::new(rotary(fields, head_size)?),
        experts: experts(fields, gate.is_some())?,
    };
    let segments = fields.number_or("type_vocab_size", 2.0)?;
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id: fields.token_or("pad_token_id", 0)?,
        max_sequence_tokens: fields.size_or("n_positions", 8192)?,
        embeddings: Embeddings {
            words: Table {
                name: "embeddings.word_embeddings.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: 1.0,
            positions: None,
            segments: match segments > 0.0 {
                true => Some(Table {
                    name: "embeddings.token_type_embeddings.weight".into(),
                    rows: fields.size_or("type_vocab_size", 2)?,
                }),
                false => None,
            },
            norm: Some(Norm::layer("emb_ln", width, eps)),
            projection: None,
        },
        attention: Attention::of_heads(n_heads, head_size),
        feed_forward,
        layers: (0..fields.layers("n_layer")?)
            .map(|i| layer(&shared, i))
            .collect(),
        final_norm: None,
        classifier: None,
        language_head: None,
        adapters: None,
        not_described: None,
    })
}

fn experts(fields: &Fields<'_>, has_gate: bool) -> Result<Option<OfExperts>, String> {
    if fields.number_or("num_experts", 0.0)? <= 0.0
        || fields.number_or("moe_every_n_layers", 0.0)? <= 0.0
    {
        return Ok(None);
    }
    if has_gate {
        return Err("num_experts is set, supported is activation_function \"gelu\" with it".into());
    }
    for flag in ["moe_normalize_expert_weights", "expert_choice_router"] {
        fields.only_flag(flag, false)?;
    }
    if fields.number_or("num_shared_experts", 0.0)? > 0.0 {
        return Err("num_shared_experts is set, supported is 0".into());
    }
    let (n, n_chosen) = (fields.size("num_experts")?, fields.size_or("moe_top_k", 1)?);
    if n_chosen > n {
        return Err(format!(
            "moe_top_k is {n_chosen}, expected at most num_experts, which is {n}"
        ));
    }
    Ok(Some(OfExperts {
        n,
        n_chosen,
        every: fields.size("moe_every_n_layers")?,
    }))
}

fn rotary(fields: &Fields<'_>, head_size: usize) -> Result<Rotary, String> {
    let fraction = fields.number_or("rotary_emb_fraction", 0.0)?;
    if fraction <= 0.0 || fraction > 1.0 {
        return Err(format!(
            "rotary_emb_fraction is {fraction}, supported is more than 0 and at most 1"
        ));
    }
    if fields.get("rotary_scaling_factor").is_some()
        || fields.get("rotary_emb_scale_base").is_some()
    {
        return Err(
            "rotary_scaling_factor is set, supported is null: positions are not scaled".into(),
        );
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of the size of a head"
    )]
    let dimensions = (head_size as f64 * fraction) as usize;
    if !dimensions.is_multiple_of(2) {
        return Err(format!(
            "heads have {dimensions} numbers that turn by their position, expected an even number"
        ));
    }
    let mut rotary = Rotary::new(fields.positive_or("rotary_emb_base", 10_000.0)?, dimensions);
    if fields.flag_or("rotary_emb_interleaved", false)? {
        rotary.pairs = RotaryPairs::Neighbours;
    }
    Ok(rotary)
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width,
        size,
        eps,
        has_gate,
        biases: [of_attention, of_up, of_down],
        ..
    } = *shared;
    let at = |name: &str| format!("encoder.layers.{i}.{name}");
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, eps));
    let up = match has_gate {
        true => {
            let ups = ["fc11", "fc12"].map(|part| (at(&format!("mlp.{part}")), size));
            Linear::stacked(ups, width, of_up)
        }
        false => Linear::of(at("mlp.fc1"), [size, width], of_up),
    };
    let down = Linear::of(at("mlp.fc2"), [width, size], of_down);
    let experts = shared.experts.filter(|of| i % of.every == 1);
    let (up, down) = match experts {
        Some(_) => (
            Linear::of(at("mlp.experts.mlp.w1"), [size, width], false),
            Linear::of(at("mlp.experts.mlp.w2"), [width, size], false),
        ),
        None => (up, down),
    };
    Layer {
        attention_norms: norm("norm1"),
        qkv: Linear::of(at("attn.Wqkv"), [3 * width, width], of_attention),
        query_norm: None,
        key_norm: None,
        rotary: Some(Arc::clone(&shared.rotary)),
        reach: Reach::default(),
        out: Linear::of(at("attn.out_proj"), [width, width], of_attention),
        feed_forward_norms: norm("norm2"),
        up,
        down,
        experts: experts.map(|of| Experts {
            router: Linear::of(at("mlp.router.layer"), [of.n, width], false),
            n_chosen: of.n_chosen,
            bias: at("mlp.experts.bias"),
        }),
    }
}
