//! The architecture of an encoder, as `config.json` states it.

pub mod stacked;

use serde::{Deserialize, Serialize};

/// The family of an encoder: what differs between them is the numbering of positions, and the head of a cross-encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Architecture {
    /// BERT: positions count from 0.
    Bert,
    /// RoBERTa, XLM-RoBERTa, CamemBERT: positions count from `padding_idx + 1` and skip padding tokens.
    Roberta,
}

impl Architecture {
    /// Names of the two linear layers of a cross-encoder's head: `second(tanh(first(x)))`, where `x` is the first token's
    /// vector, is the score.
    ///
    /// The first has shape `(hidden_size, hidden_size)`, the second `(1, hidden_size)`.
    ///
    /// Source: transformers 5.23, `modeling_bert.py`, `BertPooler` and `BertForSequenceClassification`;
    /// `modeling_xlm_roberta.py`, `XLMRobertaClassificationHead`.
    #[must_use]
    pub fn classifier_layers(self) -> [&'static str; 2] {
        match self {
            Self::Bert => ["pooler.dense", "classifier"],
            Self::Roberta => ["classifier.dense", "classifier.out_proj"],
        }
    }
}

/// The feed-forward layer's activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Activation {
    /// `x / 2 (1 + erf(x / sqrt 2))`, which transformers calls `gelu`.
    Gelu,
    /// The tanh approximation, which transformers calls `gelu_new` or `gelu_pytorch_tanh`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// Shape of a BERT-like encoder, checked to make sense.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EncoderConfig {
    /// The architecture, which determines how positions are numbered.
    pub architecture: Architecture,
    /// Rows of the token embedding.
    pub vocabulary_size: usize,
    /// Width of a token vector.
    pub hidden_size: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// The feed-forward layer's activation.
    pub activation: Activation,
    /// Rows of the position embedding.
    pub max_position_embeddings: usize,
    /// Rows of the segment embedding.
    pub type_vocabulary_size: usize,
    /// Added to the variance in layer normalization.
    pub layer_norm_eps: f32,
    /// The padding token, which RoBERTa's positions skip.
    pub pad_token_id: u32,
}

impl EncoderConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// A sentence that names the field and says what is supported.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let raw: RawConfig = serde_json::from_str(text).map_err(|e| e.to_string())?;
        raw.resolve()
    }

    /// Width of an attention head.
    #[must_use]
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.n_heads
    }

    /// Longest sequence that the position embedding allows.
    #[must_use]
    pub fn max_sequence_tokens(&self) -> usize {
        self.max_position_embeddings - self.first_position()
    }

    fn first_position(&self) -> usize {
        match self.architecture {
            Architecture::Bert => 0,
            Architecture::Roberta => self.pad_token_id as usize + 1,
        }
    }

    /// Position ids of one sequence.
    ///
    /// Source: transformers 5.23, `modeling_xlm_roberta.py`, `create_position_ids_from_input_ids`: padding tokens
    /// within a sequence get `padding_idx` and do not count.
    pub fn position_ids<'a>(&self, ids: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let roberta = self.architecture == Architecture::Roberta;
        let pad = self.pad_token_id;
        let mut next = if roberta { pad + 1 } else { 0 };
        ids.iter().map(move |&id| {
            if roberta && id == pad {
                return pad;
            }
            next += 1;
            next - 1
        })
    }
}

/// The fields of `config.json` as transformers writes them.
#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    pad_token_id: Option<u32>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    quantization_config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pruned_heads: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
}

impl RawConfig {
    fn resolve(self) -> Result<EncoderConfig, String> {
        let architecture = self.architecture()?;
        if let Some(other) = self
            .position_embedding_type
            .as_deref()
            .filter(|p| *p != "absolute")
        {
            return Err(format!(
                "position_embedding_type is \"{other}\", supported is \"absolute\""
            ));
        }
        if self.is_decoder {
            return Err("is_decoder is true, supported are encoders".into());
        }
        if self.quantization_config.is_some() {
            return Err(
                "quantization_config is set, supported are weights in f32, f16 and bf16: save the model without it, and set \
                 backend.precision"
                    .into(),
            );
        }
        if !self.pruned_heads.is_empty() {
            return Err("pruned_heads is set, supported are models with all their heads".into());
        }
        let config = EncoderConfig {
            architecture,
            vocabulary_size: size("vocab_size", self.vocab_size)?,
            hidden_size: size("hidden_size", self.hidden_size)?,
            n_layers: size("num_hidden_layers", self.num_hidden_layers)?,
            n_heads: size("num_attention_heads", self.num_attention_heads)?,
            intermediate_size: size("intermediate_size", self.intermediate_size)?,
            activation: activation(self.hidden_act.as_deref().unwrap_or("gelu"))?,
            max_position_embeddings: size("max_position_embeddings", self.max_position_embeddings)?,
            type_vocabulary_size: size("type_vocab_size", self.type_vocab_size.or(Some(2)))?,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            pad_token_id: self.pad_token_id.unwrap_or(match architecture {
                Architecture::Bert => 0,
                Architecture::Roberta => 1,
            }),
        };
        check(&config)?;
        Ok(config)
    }

    fn architecture(&self) -> Result<Architecture, String> {
        match self.model_type.as_deref() {
            Some("bert") => Ok(Architecture::Bert),
            Some("roberta" | "xlm-roberta" | "camembert") => Ok(Architecture::Roberta),
            Some(other) => Err(format!(
                "model_type is \"{other}\", supported are bert, roberta, xlm-roberta and camembert"
            )),
            None => Err(
                "model_type is missing, supported are bert, roberta, xlm-roberta and camembert"
                    .into(),
            ),
        }
    }
}

/// Sizes beyond this are a broken file, not a model: products of two of them still fit.
const MAX_SIZE: usize = 1 << 24;

fn size(field: &str, value: Option<usize>) -> Result<usize, String> {
    match value {
        None => Err(format!("{field} is missing")),
        Some(n) if n == 0 || n > MAX_SIZE => {
            Err(format!("{field} is {n}, expected 1 to {MAX_SIZE}"))
        }
        Some(n) => Ok(n),
    }
}

fn activation(name: &str) -> Result<Activation, String> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(format!(
            "hidden_act is \"{other}\", supported are gelu, gelu_new, gelu_pytorch_tanh and relu"
        )),
    }
}

fn check(config: &EncoderConfig) -> Result<(), String> {
    if !config.hidden_size.is_multiple_of(config.n_heads) {
        return Err(format!(
            "hidden_size {} is not a multiple of num_attention_heads {}",
            config.hidden_size, config.n_heads
        ));
    }
    if config.first_position() >= config.max_position_embeddings {
        return Err(format!(
            "max_position_embeddings is {}, which leaves no position above pad_token_id {}",
            config.max_position_embeddings, config.pad_token_id
        ));
    }
    if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps < 1.0) {
        return Err(format!(
            "layer_norm_eps is {}, expected a small positive number",
            config.layer_norm_eps
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xlm_roberta() -> serde_json::Value {
        serde_json::json!({
            "model_type": "xlm-roberta", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 128, "hidden_act": "gelu",
            "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
        })
    }

    #[test]
    fn roberta_positions_start_after_the_padding_index_and_skip_padding() {
        let config = EncoderConfig::from_json(&xlm_roberta().to_string()).unwrap();
        assert_eq!(config.max_sequence_tokens(), 512);
        assert_eq!(
            config.position_ids(&[0, 7, 1, 8, 2]).collect::<Vec<_>>(),
            [2, 3, 1, 4, 5]
        );
    }

    #[test]
    fn bert_positions_count_from_zero() {
        let mut json = xlm_roberta();
        json["model_type"] = "bert".into();
        let config = EncoderConfig::from_json(&json.to_string()).unwrap();
        assert_eq!(
            config.position_ids(&[1, 7, 1]).collect::<Vec<_>>(),
            [0, 1, 2]
        );
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let cases = [
            (
                "model_type",
                serde_json::json!("gpt2"),
                "model_type is \"gpt2\"",
            ),
            ("hidden_size", serde_json::json!(63), "not a multiple"),
            ("hidden_size", serde_json::json!(0), "hidden_size is 0"),
            (
                "vocab_size",
                serde_json::json!(null),
                "vocab_size is missing",
            ),
            (
                "vocab_size",
                serde_json::json!(99_999_999_999_u64),
                "vocab_size is 99999999999",
            ),
            (
                "hidden_act",
                serde_json::json!("swiglu"),
                "hidden_act is \"swiglu\"",
            ),
            (
                "position_embedding_type",
                serde_json::json!("relative_key"),
                "relative_key",
            ),
            (
                "max_position_embeddings",
                serde_json::json!(2),
                "leaves no position",
            ),
            (
                "layer_norm_eps",
                serde_json::json!(-1.0),
                "layer_norm_eps is -1",
            ),
        ];
        for (field, value, expected) in cases {
            let mut json = xlm_roberta();
            json[field] = value;
            let error = EncoderConfig::from_json(&json.to_string()).unwrap_err();
            assert!(error.contains(expected), "{field}: {error}");
        }
    }
}
