//! The description of an encoder: its parts, their tensors' names, and how they follow each other.
//!
//! A family of models is a file in `family` that makes this description of its `config.json`; backends build the encoder
//! from the description alone, and know no family.

mod adapters;
mod bert_like;
mod classifier;
mod distance_vectors;
mod experts;
mod family;
mod fields;
mod layer;
mod opaque;
mod parts;
mod positions;

pub use self::{
    adapters::Adapters,
    bert_like::{BertLayer, BertLike},
    classifier::{AnswerTokens, Classifier, Score},
    distance_vectors::DistanceVectors,
    experts::{ExpertValues, Experts},
    layer::{Activation, Attention, FeedForward, Gate, Layer, Norms, Reach},
    parts::{Linear, LinearPart, LinearValues, Norm, NormKind, NormValues, Table},
    positions::{DistanceBias, DistanceValues, PositionTable, Rotary, RotaryPairs},
};

/// An encoder: embeddings of tokens, layers, and what follows them.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// The family's name in `config.json`, such as `xlm-roberta`.
    pub model_type: String,
    /// Width of a token vector.
    pub hidden_size: usize,
    /// The padding token.
    pub pad_token_id: u32,
    /// Longest sequence in tokens.
    pub max_sequence_tokens: usize,
    /// The vectors of tokens.
    pub embeddings: Embeddings,
    /// The shape of attention in all layers.
    pub attention: Attention,
    /// The shape of the feed-forward layer in all layers.
    pub feed_forward: FeedForward,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Of the last layer's vectors.
    pub final_norm: Option<Norm>,
    /// The head of a cross-encoder of this family; none where the family has none that is known.
    pub classifier: Option<Classifier>,
    /// The head of a masked language model of this family; none where the family has none that is known.
    pub language_head: Option<LanguageHead>,
    /// The adapters that lie among the weights; none where there are none.
    pub adapters: Option<Adapters>,
    /// The reason why there is no description, but sizes alone; none where there is one. Without it a model runs from an ONNX
    /// file, which has all else.
    pub not_described: Option<String>,
}

/// The vectors of tokens: `project(norm(words * factor + positions + segments))`, without those that are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// The vectors of tokens, by id.
    pub words: Table,
    /// Numbers of a vector.
    pub width: usize,
    /// The factor of a token's vector.
    pub factor: f32,
    /// Vectors by position.
    pub positions: Option<PositionTable>,
    /// Vectors by segment.
    pub segments: Option<Table>,
    /// Of the sum.
    pub norm: Option<Norm>,
    /// From `width` to the encoder's width.
    pub projection: Option<Linear>,
}

/// Rounds a number that was computed in f64, as the references do.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what it is for"
)]
pub(crate) fn narrowed(x: f64) -> f32 {
    x as f32
}

/// The head of a masked language model: a logit for each token of the vocabulary, `decode(norm(activation(dense(x))))`.
#[derive(Clone, Debug, PartialEq)]
pub struct LanguageHead {
    /// The first layer, and its activation.
    pub dense: (Linear, Activation),
    /// A normalization behind it.
    pub norm: Norm,
    /// The name of the last layer's weight, of shape `(vocabulary, hidden size)`; where files have none, it is the vectors of tokens.
    pub decoder: String,
    /// The names that the last layer's bias may have, the one that wins first.
    pub biases: [String; 2],
}

impl LanguageHead {
    /// Reads the last layer, of an encoder of this description. `has` says whether a tensor is there, `read` gives that of a name and a
    /// shape.
    ///
    /// # Errors
    /// The first that `read` gives.
    pub fn read_decoder<E>(
        &self,
        config: &EncoderConfig,
        has: impl Fn(&str) -> bool,
        read: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<LinearValues, E> {
        let words = &config.embeddings.words;
        let [own, other] = &self.biases;
        let weight = if has(&self.decoder) {
            &self.decoder
        } else {
            &words.name
        };
        let bias = if has(own) { own } else { other };
        Ok(LinearValues {
            weight: read(weight, &[words.rows, config.hidden_size])?,
            bias: read(bias, &[words.rows])?,
        })
    }

    /// The head whose layers have these names.
    fn of([dense, norm, decoder, bias]: [&str; 4], config: (usize, Activation, f32)) -> Self {
        let (width, activation, eps) = config;
        Self {
            dense: (Linear::of(dense, [width, width], true), activation),
            norm: Norm::layer(norm, width, eps),
            decoder: format!("{decoder}.weight"),
            biases: [format!("{decoder}.bias"), bias.into()],
        }
    }
}

impl EncoderConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// A sentence that names the field and says what is supported.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let file: serde_json::Map<_, _> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        family::describe(&fields::Fields(&file))
    }

    /// Rows of the token embedding.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.embeddings.words.rows
    }

    /// The number of segments: 1 where the model has none.
    #[must_use]
    pub fn n_segments(&self) -> usize {
        let segments = self.embeddings.segments.as_ref();
        segments.map_or(1, |table| table.rows)
    }

    /// Position ids of one sequence, where the model has vectors by position; else places from 0 on.
    pub fn position_ids<'a>(&self, ids: &'a [u32]) -> Box<dyn Iterator<Item = u32> + 'a> {
        match &self.embeddings.positions {
            Some(positions) => Box::new(positions.ids(ids)),
            None => Box::new((0_u32..).take(ids.len())),
        }
    }

    /// Numbers of the weights of all layers' products.
    #[must_use]
    pub fn product_weights(&self) -> usize {
        self.weights_with(|experts| experts.router.outer())
    }

    /// Numbers of those weights that one token is multiplied with: of experts some alone.
    #[must_use]
    pub fn token_weights(&self) -> usize {
        self.weights_with(|experts| experts.n_chosen)
    }

    fn weights_with(&self, of_experts: impl Fn(&Experts) -> usize) -> usize {
        let attention = &self.attention;
        let of_attention = attention.qkv_width() + attention.query_width();
        let of_feed_forward = self.feed_forward.up_width() + self.feed_forward.size;
        let of_layer = |layer: &Layer| {
            let n = layer.experts.as_ref().map_or(1, &of_experts);
            of_attention + of_feed_forward.saturating_mul(n)
        };
        let layers = self.layers.iter().map(of_layer);
        let all = layers.fold(0_usize, usize::saturating_add);
        all.saturating_mul(self.hidden_size)
    }

    /// Numbers of the tables of tokens, positions and segments.
    #[must_use]
    pub fn table_numbers(&self) -> usize {
        let Embeddings {
            words,
            width,
            positions,
            segments,
            ..
        } = &self.embeddings;
        let positions = positions
            .as_ref()
            .map_or(0, |positions| positions.table.rows);
        let segments = segments.as_ref().map_or(0, |table| table.rows);
        (words.rows + positions + segments).saturating_mul(*width)
    }
}
