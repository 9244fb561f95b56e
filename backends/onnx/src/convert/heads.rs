//! The graph of what follows the encoder: bge-m3's heads, or the head of a cross-encoder.
//!
//! Source: FlagEmbedding 1.4.2, `m3/modeling.py`; transformers 5.23, `modeling_bert.py`, `BertPooler` and
//! `BertForSequenceClassification`, and `modeling_xlm_roberta.py`, `XLMRobertaClassificationHead`.

use embedgate_core::{EncoderConfig, Head, encoder::Classifier};

use super::{
    ConvertError, Parts, attributes::int, graph::Builder, layers::unfit, products::linear,
};
use crate::proto::element;

/// The output of token vectors; the last layer makes it itself where it can.
pub(super) const TOKENS: &str = "last_hidden_state";

type Result<T> = std::result::Result<T, ConvertError>;

/// Adds the heads and declares the model's outputs; `hidden` has shape `(batch, length, width)`.
pub(super) fn heads(
    b: &mut Builder<'_, '_>,
    Parts { encoder, heads }: Parts<'_>,
    hidden: &str,
) -> Result<()> {
    let width = encoder.hidden_size;
    if heads.has(Head::Score) {
        return score(b, encoder, hidden);
    }
    if hidden != TOKENS {
        output(b, TOKENS, hidden);
    }
    b.token_output(TOKENS, width);
    if heads.has(Head::Sparse) {
        let weights = linear(b, "sparse_linear", hidden, [width, 1])?;
        let weights = b.node("Relu", &[&weights], vec![]);
        output(b, "sparse_weights", &weights);
        b.token_output("sparse_weights", 1);
    }
    if heads.has(Head::MultiVector) {
        let vectors = linear(b, "colbert_linear", hidden, [width, width])?;
        output(b, "colbert_vecs", &vectors);
        b.token_output("colbert_vecs", width);
    }
    Ok(())
}

/// Names a value as an output, in f32.
fn output(b: &mut Builder<'_, '_>, name: &str, value: &str) {
    let to_f32 = vec![int("to", element::FLOAT.into())];
    match b.variant.is_half() {
        true => b.named(name, "Cast", &[value], to_f32),
        false => b.named(name, "Identity", &[value], vec![]),
    };
}

/// Two linear layers with a tanh between, of each sequence's first token. No sigmoid.
fn score(b: &mut Builder<'_, '_>, config: &EncoderConfig, hidden: &str) -> Result<()> {
    let classifier = config.classifier.as_ref();
    let layers = classifier.and_then(Classifier::bert_like);
    let [dense, score] =
        layers.ok_or_else(|| unfit(config, "another head of its cross-encoder"))?;
    let at = b.tensors.ints("first_token", &[0], &[]);
    let first = b.node("Gather", &[hidden, &at], vec![int("axis", 1)]);
    let dense = linear(b, dense.name(), &first, [dense.inner, dense.outer()])?;
    let dense = b.node("Tanh", &[&dense], vec![]);
    let score = linear(b, score.name(), &dense, [score.inner, 1])?;
    output(b, "logits", &score);
    b.sequence_output("logits", 1);
    Ok(())
}
