//! XLM-RoBERTa as jina lays it out: with a rotation for positions and an adapter a task in its third embedders, with positions as ever
//! in its second reranker.
//!
//! Source: jina's `modeling_xlm_roberta.py` of xlm-roberta-flash-implementation; transformers 5.24, `modeling_jina_embeddings_v3.py`.

use std::sync::Arc;

use super::{super::fields::Fields, bert, head_size, rope};
use crate::encoder::{
    Adapters, Attention, Embeddings, EncoderConfig, FeedForward, Layer, Linear, Norm, Norms,
    PositionTable, Reach, Rotary, Table,
};

/// The type that transformers gives to these embedders.
pub(super) const MODEL_TYPE: &str = "jina_embeddings_v3";
/// The end of the name of the class that reads their `config.json` on the hub, where their type is that of XLM-RoBERTa.
const CONFIG_CLASS: &str = "XLMRobertaFlashConfig";
/// The classes of models that this is the description of.
const CLASSES: [&str; 2] = ["XLMRobertaLoRA", "XLMRobertaModel"];

/// Returns true for a file of this layout whose type is that of XLM-RoBERTa.
pub(super) fn is_hidden_in(fields: &Fields<'_>) -> bool {
    let class = |name: &str| {
        let code = fields.get("auto_map")?.get(name)?.as_str()?;
        code.rsplit('.').next()
    };
    class("AutoConfig") == Some(CONFIG_CLASS)
        && class("AutoModel").is_none_or(|class| CLASSES.contains(&class))
}

/// The facts that all layers of a model share.
struct Shared {
    width: usize,
    size: usize,
    eps: f32,
    rotary: Option<Arc<Rotary>>,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    let gelus = ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"];
    fields.only_word("hidden_act", &gelus)?;
    fields.none_of(&["last_layer_subset"])?;
    let width = fields.size("hidden_size")?;
    let n_heads = fields.size("num_attention_heads")?;
    let head_size = head_size(width, n_heads)?;
    let activation = fields.activation_or("hidden_act", "gelu")?;
    let eps = fields.eps_or("layer_norm_eps", 1e-5)?;
    let rotary = rotary(fields, head_size)?;
    let rows = fields.size("max_position_embeddings")?;
    let pad_token_id = fields.token_or("pad_token_id", 1)?;
    let positions = PositionTable {
        table: Table {
            name: "embeddings.position_embeddings.weight".into(),
            rows,
        },
        first: pad_token_id + 1,
        uncounted: Some(pad_token_id),
    };
    let max_sequence_tokens = match &rotary {
        Some(_) => rows,
        None => positions.max_sequence_tokens(),
    };
    let shared = Shared {
        width,
        size: fields.size("intermediate_size")?,
        eps,
        rotary: rotary.map(Arc::new),
    };
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id,
        max_sequence_tokens,
        embeddings: Embeddings {
            words: Table {
                name: "embeddings.word_embeddings.weight".into(),
                rows: fields.size("vocab_size")?,
            },
            width,
            factor: 1.0,
            positions: shared.rotary.is_none().then_some(positions),
            segments: Some(Table {
                name: "embeddings.token_type_embeddings.weight".into(),
                rows: fields.size_or("type_vocab_size", 1)?,
            }),
            norm: Some(Norm::layer("emb_ln", width, eps)),
            projection: None,
        },
        attention: Attention::of_heads(n_heads, head_size),
        feed_forward: FeedForward {
            size: shared.size,
            activation,
            gate: None,
        },
        layers: (0..fields.layers("num_hidden_layers")?)
            .map(|i| layer(&shared, i))
            .collect(),
        final_norm: None,
        classifier: Some(bert::classifier("xlm-roberta", width)),
        language_head: None,
        adapters: Adapters::read(fields)?,
        not_described: None,
    })
}

/// The rotation of queries and keys; none where positions have vectors.
fn rotary(fields: &Fields<'_>, head_size: usize) -> Result<Option<Rotary>, String> {
    if fields.word_or("model_type", "")? == MODEL_TYPE {
        return rope::rotary(fields, 20_000.0, head_size).map(Some);
    }
    // Versions of the code differ in what they take for the usual one.
    match fields.word_or("position_embedding_type", "missing")? {
        "absolute" => Ok(None),
        "rotary" if head_size.is_multiple_of(2) => {
            let others = [
                "rotary_emb_interleaved",
                "rotary_emb_scale_base",
                "rotary_emb_dim",
            ];
            fields.none_of(&others)?;
            let base = fields.positive_or("rotary_emb_base", 10_000.0)?;
            Ok(Some(Rotary::new(base, head_size)))
        }
        "rotary" => Err(format!(
            "heads have {head_size} numbers that turn by their position, expected an even number"
        )),
        other => Err(format!(
            "position_embedding_type is \"{other}\", supported is \"absolute\" or \"rotary\""
        )),
    }
}

fn layer(shared: &Shared, i: usize) -> Layer {
    let Shared {
        width, size, eps, ..
    } = *shared;
    let at = |name: &str| format!("encoder.layers.{i}.{name}");
    let linear = |name: &str, shape| Linear::of(at(name), shape, true);
    let norm = |name: &str| Norms::After(Norm::layer(at(name), width, eps));
    Layer {
        attention_norms: norm("norm1"),
        qkv: linear("mixer.Wqkv", [3 * width, width]),
        query_norm: None,
        key_norm: None,
        rotary: shared.rotary.clone(),
        reach: Reach::default(),
        out: linear("mixer.out_proj", [width, width]),
        feed_forward_norms: norm("norm2"),
        up: linear("mlp.fc1", [size, width]),
        down: linear("mlp.fc2", [width, size]),
        experts: None,
    }
}
