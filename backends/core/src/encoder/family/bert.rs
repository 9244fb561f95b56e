//! BERT and those that differ from it in names and numbers: RoBERTa, XLM-RoBERTa, CamemBERT, ERNIE, ELECTRA; and jina's
//! second embedders, which call themselves BERT and have slopes for positions and a gate.
//!
//! Source: transformers 5.24, `modeling_bert.py`, `modeling_xlm_roberta.py`, `modeling_ernie.py`, `modeling_electra.py`; of
//! jina's `modeling_bert.py` of jina-bert-implementation.

use super::{super::fields::Fields, head_size};
use crate::{
    Pooling,
    encoder::{
        Activation, Attention, Classifier, DistanceBias, Embeddings, EncoderConfig, FeedForward,
        Gate, LanguageHead, Layer, Linear, Norm, Norms, PositionTable, Reach, Table,
    },
};

/// The sizes of a file.
struct Sizes {
    width: usize,
    n_layers: usize,
    feed_forward: FeedForward,
    eps: f32,
    jina: Option<Jina>,
}

/// The embedders of jina that call themselves BERT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Jina {
    /// Those of texts.
    Text,
    /// That of code, which normalizes queries and keys, and more than once behind attention.
    Code,
}

/// Describes an encoder of this family.
pub(super) fn describe(fields: &Fields<'_>, model_type: &str) -> Result<EncoderConfig, String> {
    let has_slopes = fields.word_or("position_embedding_type", "")? == "alibi";
    let is_jina = model_type == "bert" && has_slopes;
    let jina = is_jina.then(|| jina(fields));
    if !is_jina {
        fields.only_word("position_embedding_type", &["absolute"])?;
    }
    if fields.flag_or("is_decoder", false)? {
        return Err("is_decoder is true, supported are encoders".into());
    }
    fields.none_of(&["pruned_heads", "use_task_id"])?;
    let width = fields.size("hidden_size")?;
    let activation = fields.activation_or("hidden_act", "gelu")?;
    let size = fields.size("intermediate_size")?;
    let eps = fields.eps_or("layer_norm_eps", 1e-12)?;
    let feed_forward = match is_jina {
        true => gated(fields, size, jina)?,
        false => FeedForward {
            size,
            activation,
            gate: None,
        },
    };
    let sizes = Sizes {
        width,
        n_layers: fields.layers("num_hidden_layers")?,
        feed_forward,
        eps,
        jina,
    };
    let n_heads = fields.size("num_attention_heads")?;
    let mut attention = Attention::of_heads(n_heads, head_size(width, n_heads)?);
    attention.bias = is_jina.then(|| DistanceBias::slopes(n_heads));
    let is_roberta = matches!(model_type, "roberta" | "xlm-roberta" | "camembert");
    let pad_token_id = fields.token_or("pad_token_id", u32::from(is_roberta))?;
    let rows = fields.size("max_position_embeddings")?;
    let positions = PositionTable {
        table: table("embeddings.position_embeddings", rows),
        first: if is_roberta { pad_token_id + 1 } else { 0 },
        uncounted: is_roberta.then_some(pad_token_id),
    };
    let embedding = match model_type {
        "electra" => fields.size_or("embedding_size", 128)?,
        _ => width,
    };
    let segments = fields.size_or("type_vocab_size", 2)?;
    Ok(EncoderConfig {
        model_type: model_type.into(),
        hidden_size: width,
        pad_token_id,
        max_sequence_tokens: positions.max_sequence_tokens(),
        embeddings: Embeddings {
            words: table("embeddings.word_embeddings", fields.size("vocab_size")?),
            width: embedding,
            factor: 1.0,
            positions: (!is_jina).then_some(positions),
            segments: Some(table("embeddings.token_type_embeddings", segments)),
            norm: Some(Norm::layer("embeddings.LayerNorm", embedding, eps)),
            projection: (embedding != width)
                .then(|| Linear::of("embeddings_project", [width, embedding], true)),
        },
        attention,
        feed_forward: sizes.feed_forward,
        layers: (0..sizes.n_layers).map(|i| layer(&sizes, i)).collect(),
        final_norm: None,
        classifier: Some(classifier(model_type, width)),
        language_head: language_head(model_type, (width, activation, eps)),
        adapters: None,
        not_described: None,
    })
}

/// The embedder of code has Python code of its own.
fn jina(fields: &Fields<'_>) -> Jina {
    let code = fields.get("auto_map").and_then(|map| map.get("AutoModel"));
    let code = code.and_then(serde_json::Value::as_str);
    match code.is_some_and(|code| code.contains("qk-post-norm")) {
        true => Jina::Code,
        false => Jina::Text,
    }
}

/// The feed-forward layer of jina's embedders.
fn gated(fields: &Fields<'_>, size: usize, jina: Option<Jina>) -> Result<FeedForward, String> {
    fields.only_word("feed_forward_type", &["original", "geglu", "reglu"])?;
    let activation = match fields.word_or("feed_forward_type", "original")? {
        "geglu" => Activation::Gelu,
        "reglu" => Activation::Relu,
        _ => {
            let problem = "feed_forward_type is \"original\", supported is \"geglu\" or \"reglu\" where \
                           position_embedding_type is \"alibi\"";
            return Err(problem.into());
        }
    };
    Ok(FeedForward {
        size,
        activation,
        gate: Some(match jina {
            Some(Jina::Code) => Gate::Second,
            _ => Gate::First,
        }),
    })
}

fn table(name: &str, rows: usize) -> Table {
    Table {
        name: format!("{name}.weight"),
        rows,
    }
}

fn layer(sizes: &Sizes, i: usize) -> Layer {
    let (width, size, eps) = (sizes.width, sizes.feed_forward.size, sizes.eps);
    let at = |name: &str| format!("encoder.layer.{i}.{name}");
    let linear = |name: &str, shape| Linear::of(at(name), shape, true);
    let parts =
        ["query", "key", "value"].map(|part| (at(&format!("attention.self.{part}")), width));
    let norm = |name: &str| Norm::layer(at(name), width, eps);
    let gated = |name: &str| Linear::of(at(name), [2 * size, width], false);
    let down = |name: &str| linear(name, [width, size]);
    let (up, down, feed_forward_norm) = match sizes.jina {
        None => (
            linear("intermediate.dense", [size, width]),
            down("output.dense"),
            norm("output.LayerNorm"),
        ),
        Some(Jina::Text) => (
            gated("mlp.gated_layers"),
            down("mlp.wo"),
            norm("mlp.layernorm"),
        ),
        Some(Jina::Code) => (
            gated("mlp.up_gated_layer"),
            down("mlp.down_layer"),
            norm("layer_norm_2"),
        ),
    };
    let is_code = sizes.jina == Some(Jina::Code);
    let first = norm("attention.output.LayerNorm");
    let of_queries = |name: &str| is_code.then(|| norm(&format!("attention.self.{name}")));
    Layer {
        attention_norms: match is_code {
            true => Norms::Twice {
                first,
                then: norm("layer_norm_1"),
            },
            false => Norms::After(first),
        },
        qkv: Linear::stacked(parts, width, true),
        query_norm: of_queries("layer_norm_q"),
        key_norm: of_queries("layer_norm_k"),
        rotary: None,
        reach: Reach::default(),
        out: linear("attention.output.dense", [width, width]),
        feed_forward_norms: Norms::After(feed_forward_norm),
        up,
        down,
        experts: None,
    }
}

fn language_head(model_type: &str, config: (usize, Activation, f32)) -> Option<LanguageHead> {
    let names = match model_type {
        "bert" | "ernie" => [
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.decoder",
            "cls.predictions.bias",
        ],
        "roberta" | "xlm-roberta" | "camembert" => [
            "lm_head.dense",
            "lm_head.layer_norm",
            "lm_head.decoder",
            "lm_head.bias",
        ],
        _ => return None,
    };
    // The heads of RoBERTa have an activation of their own.
    let (width, activation, eps) = config;
    let activation = match model_type {
        "bert" | "ernie" => activation,
        _ => Activation::Gelu,
    };
    Some(LanguageHead::of(names, (width, activation, eps)))
}

/// The head of a cross-encoder of this type.
pub(super) fn classifier(model_type: &str, width: usize) -> Classifier {
    let (dense, activation, score) = match model_type {
        "bert" | "ernie" => ("pooler.dense", Activation::Tanh, "classifier"),
        "electra" => ("classifier.dense", Activation::Gelu, "classifier.out_proj"),
        _ => ("classifier.dense", Activation::Tanh, "classifier.out_proj"),
    };
    Classifier {
        dense: Some((Linear::of(dense, [width, width], true), activation)),
        norm: None,
        score: Linear::of(score, [1, width], true).into(),
        pooling: Pooling::CLS,
    }
}
