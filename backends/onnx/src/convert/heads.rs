//! The graph of what follows the encoder: bge-m3's heads, or the head of a cross-encoder.
//!
//! Source: FlagEmbedding 1.4.2, `m3/modeling.py`; transformers 5.23, `modeling_bert.py`, `BertPooler` and
//! `BertForSequenceClassification`, and `modeling_xlm_roberta.py`, `XLMRobertaClassificationHead`.

use embedgate_core::EncoderConfig;

use super::{ConvertError, Heads, attributes::int, graph::Builder, products::linear};

type Result<T> = std::result::Result<T, ConvertError>;

/// Adds the heads and declares the model's outputs; `hidden` has shape `(batch, length, width)`.
pub(super) fn heads(
    b: &mut Builder<'_, '_>,
    config: &EncoderConfig,
    heads: Heads,
    hidden: &str,
) -> Result<()> {
    let width = config.hidden_size;
    if heads.score {
        return score(b, config, hidden);
    }
    b.token_output(hidden, width);
    if heads.sparse {
        let weights = linear(b, "sparse_linear", hidden, [width, 1])?;
        b.named("sparse_weights", "Relu", &[&weights], vec![]);
        b.token_output("sparse_weights", 1);
    }
    if heads.multi_vector {
        let vectors = linear(b, "colbert_linear", hidden, [width, width])?;
        b.named("colbert_vecs", "Identity", &[&vectors], vec![]);
        b.token_output("colbert_vecs", width);
    }
    Ok(())
}

/// Two linear layers with a tanh between, of each sequence's first token. No sigmoid.
fn score(b: &mut Builder<'_, '_>, config: &EncoderConfig, hidden: &str) -> Result<()> {
    let width = config.hidden_size;
    let [dense, score] = config.architecture.classifier_layers();
    let at = b.tensors.ints("first_token", &[0], &[]);
    let first = b.node("Gather", &[hidden, &at], vec![int("axis", 1)]);
    let dense = linear(b, dense, &first, [width, width])?;
    let dense = b.node("Tanh", &[&dense], vec![]);
    let score = linear(b, score, &dense, [width, 1])?;
    b.named("logits", "Identity", &[&score], vec![]);
    b.sequence_output("logits", 1);
    Ok(())
}
