//! The view of an encoder that is BERT but for names and numbers, for backends that run no other.

use super::{
    Activation, Classifier, Embeddings, EncoderConfig, Layer, Linear, Norm, NormKind, Norms,
    PositionTable, Score,
};
use crate::Pooling;

/// An encoder that is BERT but for names and numbers.
#[derive(Clone, Debug)]
pub struct BertLike<'a> {
    /// Vectors by position.
    pub positions: &'a PositionTable,
    /// Of the embeddings.
    pub norm: &'a Norm,
    /// The layers, first to last.
    pub layers: Vec<BertLayer<'a>>,
}

/// A layer of a [`BertLike`].
#[derive(Clone, Copy, Debug)]
pub struct BertLayer<'a> {
    /// Queries, then keys, then values, each a tensor with a bias.
    pub qkv: &'a Linear,
    /// The layer behind attention.
    pub out: &'a Linear,
    /// Of the sum with what attention gives.
    pub attention_norm: &'a Norm,
    /// The first layer of the feed-forward layer.
    pub up: &'a Linear,
    /// The second.
    pub down: &'a Linear,
    /// Of the sum with what the feed-forward layer gives.
    pub norm: &'a Norm,
}

impl EncoderConfig {
    /// Views the encoder as one that is BERT but for names and numbers.
    ///
    /// # Errors
    /// The first thing, in words, that this encoder has and BERT has not.
    pub fn bert_like(&self) -> Result<BertLike<'_>, &'static str> {
        const NORMS: &str = "normalizations that are not BERT's";
        let Embeddings {
            positions,
            projection,
            norm,
            factor,
            ..
        } = &self.embeddings;
        let attention = &self.attention;
        let has_own_keys = attention.n_key_heads == attention.n_heads;
        let is_as_wide = attention.query_width() == self.hidden_size;
        let bert_scale = 1.0 / (attention.head_size as f32).sqrt();
        let is_rotary = self.layers.iter().any(|layer| layer.rotary.is_some());
        refuse(is_rotary, "rotary positions")?;
        refuse(attention.bias.is_some(), "a bias of attention by distance")?;
        refuse(
            attention.vectors.is_some(),
            "vectors of attention by distance",
        )?;
        refuse(
            !has_own_keys || !is_as_wide,
            "attention heads that are not BERT's",
        )?;
        refuse(attention.scale != bert_scale, "attention of another scale")?;
        refuse(
            self.feed_forward.gate.is_some(),
            "a gate in its feed-forward layer",
        )?;
        refuse(
            projection.is_some(),
            "embeddings of another width than its layers",
        )?;
        refuse(*factor != 1.0, "scaled embeddings")?;
        refuse(self.final_norm.is_some(), NORMS)?;
        let layers = self.layers.iter().map(layer_of);
        Ok(BertLike {
            positions: positions.as_ref().ok_or("no vectors of positions")?,
            norm: norm
                .as_ref()
                .filter(|norm| is_bert_norm(norm))
                .ok_or(NORMS)?,
            layers: layers
                .collect::<Option<_>>()
                .ok_or("layers that are not BERT's")?,
        })
    }
}

impl Classifier {
    /// Returns the layers of `score(tanh(dense(x)))` of the first token's vector, each a tensor with a bias; none where the
    /// head is another.
    #[must_use]
    pub fn bert_like(&self) -> Option<[&Linear; 2]> {
        let (dense, activation) = self.dense.as_ref()?;
        let Score::Layer(score) = &self.score else {
            return None;
        };
        let is_bert = self.pooling == Pooling::CLS
            && self.norm.is_none()
            && *activation == Activation::Tanh
            && [dense, score]
                .iter()
                .all(|linear| linear.parts.iter().all(|part| part.has_bias));
        is_bert.then_some([dense, score])
    }
}

fn refuse(is_so: bool, thing: &'static str) -> Result<(), &'static str> {
    match is_so {
        true => Err(thing),
        false => Ok(()),
    }
}

fn is_bert_norm(norm: &Norm) -> bool {
    norm.kind == NormKind::Layer && norm.has_bias && norm.weight_offset == 0.0
}

/// The view of a layer; none where it is not BERT's.
fn layer_of(layer: &Layer) -> Option<BertLayer<'_>> {
    let after = |norms: &Norms| matches!(norms, Norms::After(norm) if is_bert_norm(norm));
    let linears = [&layer.qkv, &layer.out, &layer.up, &layer.down];
    let mut parts = linears.into_iter().flat_map(|linear| &linear.parts);
    let is_bert = layer.reach.is_all()
        && layer.experts.is_none()
        && layer.query_norm.is_none()
        && layer.key_norm.is_none()
        && layer.qkv.parts.len() == 3
        && parts.all(|part| part.has_bias)
        && after(&layer.attention_norms)
        && after(&layer.feed_forward_norms);
    match (&layer.attention_norms, &layer.feed_forward_norms) {
        (Norms::After(attention_norm), Norms::After(norm)) if is_bert => Some(BertLayer {
            qkv: &layer.qkv,
            out: &layer.out,
            attention_norm,
            up: &layer.up,
            down: &layer.down,
            norm,
        }),
        _ => None,
    }
}
