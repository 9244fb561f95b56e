//! The sizes of an encoder without a description.

use super::{Activation, Attention, Embeddings, EncoderConfig, FeedForward, Table, fields::Fields};

/// The names of a size in `config.json`, by what different families call it.
const WIDTH: &[&str] = &["hidden_size", "d_model", "dim", "n_embd"];
const LONGEST: &[&str] = &["max_position_embeddings", "n_positions", "max_seq_len"];
const HEADS: &[&str] = &["num_attention_heads", "n_heads", "n_head", "num_heads"];

impl EncoderConfig {
    /// Reads the sizes alone of a `config.json`, which cannot be described for this reason.
    ///
    /// # Errors
    /// The same reason, where the sizes are not there either.
    pub fn without_description(text: &str, reason: String) -> Result<Self, String> {
        let Ok(file) = serde_json::from_str(text) else {
            return Err(reason);
        };
        sizes(&Fields(&file), &reason).ok_or(reason)
    }

    /// An encoder of so many tokens and such a width, which is not described for this reason.
    pub(crate) fn of_sizes(
        model_type: &str,
        [rows, width]: [usize; 2],
        max_sequence_tokens: usize,
        reason: &str,
    ) -> Self {
        Self {
            model_type: model_type.into(),
            hidden_size: width,
            pad_token_id: 0,
            max_sequence_tokens,
            embeddings: Embeddings {
                words: Table {
                    name: String::new(),
                    rows,
                },
                width,
                factor: 1.0,
                positions: None,
                segments: None,
                norm: None,
                projection: None,
            },
            attention: Attention::of_heads(1, 1),
            feed_forward: FeedForward {
                size: width,
                activation: Activation::Gelu,
                gate: None,
            },
            layers: Vec::new(),
            final_norm: None,
            classifier: None,
            language_head: None,
            adapters: None,
            not_described: Some(reason.into()),
        }
    }
}

fn sizes(fields: &Fields<'_>, reason: &str) -> Option<EncoderConfig> {
    let first = |names: &[&str]| {
        let mut sizes = names
            .iter()
            .filter_map(|name| fields.size_if_any(name).ok()?);
        sizes.next()
    };
    let sizes = [fields.size("vocab_size").ok()?, first(WIDTH)?];
    // Without a limit of its own it is the tokenizer's.
    let longest = first(LONGEST).unwrap_or(512);
    let model_type = fields.word_or("model_type", "").ok()?;
    let mut encoder = EncoderConfig::of_sizes(model_type, sizes, longest, reason);
    encoder.pad_token_id = fields.token_or("pad_token_id", 0).ok()?;
    encoder.embeddings.segments = Some(Table {
        name: String::new(),
        rows: fields.size_or("type_vocab_size", 1).unwrap_or(1),
    });
    encoder.attention = Attention::of_heads(first(HEADS).unwrap_or(1), 1);
    if let Some(size) = first(&["intermediate_size", "hidden_dim", "d_ff", "n_inner"]) {
        encoder.feed_forward.size = size;
    }
    Some(encoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_by_their_names_in_other_families() {
        let of = |text: &str| EncoderConfig::without_description(text, "why".into());
        let deberta = of(
            r#"{"model_type": "deberta-v2", "hidden_size": 8, "vocab_size": 9, "max_position_embeddings": 7, "type_vocab_size": 0}"#,
        );
        let deberta = deberta.unwrap();
        assert_eq!(
            (
                deberta.hidden_size,
                deberta.vocabulary_size(),
                deberta.n_segments()
            ),
            (8, 9, 1)
        );
        assert_eq!(
            (deberta.max_sequence_tokens, deberta.not_described),
            (7, Some("why".into()))
        );
        assert_eq!(
            of(r#"{"d_model": 8, "vocab_size": 9}"#)
                .unwrap()
                .hidden_size,
            8
        );
        assert_eq!(of(r#"{"vocab_size": 9}"#), Err("why".into()));
        assert_eq!(of("["), Err("why".into()));
    }
}
