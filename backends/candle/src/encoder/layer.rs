//! One layer of an encoder.

use std::collections::HashMap;

use candle_core::{Result, Tensor};
use embedgate_core::{
    EncoderConfig,
    encoder::{self, FeedForward, Rotary},
};
use embedgate_weights::WeightsError;

use super::{experts::Experts, queries::HeadNorms};
use crate::{
    attention::Attention, linear::Linear, load::Loader, norm::Around, rows::TensorOptions,
};

/// The weights of a layer.
pub(super) struct Layer {
    /// Queries, keys and values in one product; queries have the factor of scores already.
    qkv: Linear,
    head_norms: HeadNorms,
    rotary: Option<std::sync::Arc<Rotary>>,
    attention: Attention,
    out: Linear,
    around_attention: Around,
    feed_forward: FeedForwardParts,
    around_feed_forward: Around,
}

/// The feed-forward layer, or several of which each token goes through some.
enum FeedForwardParts {
    Plain(Box<[Linear; 2]>),
    Experts(Experts),
}

/// The sequences of a batch, and what all layers need of them.
pub(super) struct Sequences<'a> {
    /// Sequence `i` is rows `offsets[i]..offsets[i + 1]`.
    offsets: &'a [usize],
    tensor_options: &'a TensorOptions,
    /// Cosines and sines of each token's angles, by the rotation that they are of.
    angles: HashMap<*const Rotary, Tensor>,
}

impl<'a> Sequences<'a> {
    /// The sequences between these rows.
    pub(super) fn new(offsets: &'a [usize], tensor_options: &'a TensorOptions) -> Self {
        Self {
            offsets,
            tensor_options,
            angles: HashMap::new(),
        }
    }

    /// The angles of all tokens, shape `(tokens, 2 * pairs)`: cosines, then sines.
    fn angles(&mut self, rotary: &Rotary) -> Result<Tensor> {
        if let Some(angles) = self.angles.get(&std::ptr::from_ref(rotary)) {
            return Ok(angles.clone());
        }
        let n_pairs = rotary.frequencies.len();
        let longest = self.offsets.windows(2).map(|ends| ends[1] - ends[0]).max();
        let longest = longest.unwrap_or(0);
        let mut table = Vec::with_capacity(longest * 2 * n_pairs);
        for position in 0..longest {
            table.extend(rotary.angles(position).map(|(cos, _)| cos));
            table.extend(rotary.angles(position).map(|(_, sin)| sin));
        }
        let TensorOptions { device, format, .. } = self.tensor_options;
        let table = Tensor::from_vec(table, (longest, 2 * n_pairs), device)?.to_dtype(*format)?;
        let positions = self
            .offsets
            .windows(2)
            .flat_map(|ends| 0..ends[1] - ends[0]);
        let positions: Vec<i64> = positions.map(|position| position as i64).collect();
        let angles = table.index_select(&Tensor::new(positions, device)?, 0)?;
        self.angles
            .insert(std::ptr::from_ref(rotary), angles.clone());
        Ok(angles)
    }
}

impl Layer {
    /// Loads all layers. Sequences have at most `longest` tokens.
    pub(super) fn load_all(
        config: &EncoderConfig,
        longest: usize,
        loader: Loader<'_>,
    ) -> std::result::Result<Vec<Self>, WeightsError> {
        let bias = config.attention.bias.as_ref();
        let read = |name: &str, shape: &[usize]| loader.weights.values(name, shape);
        let bias = bias.map(|bias| bias.read(config.attention.n_heads, longest, read));
        let bias = bias.transpose()?.map(std::sync::Arc::new);
        let vectors = loader.distance_vectors(config)?;
        let layers = config.layers.iter().map(|layer| {
            let distances = vectors
                .as_ref()
                .map(|vectors| loader.distances(vectors, layer, &config.attention));
            let attention = Attention {
                distances: distances.transpose()?,
                shape: config.attention.clone(),
                reach: layer.reach,
                bias: bias.clone(),
            };
            Self::load(layer, attention, loader)
        });
        layers.collect()
    }

    fn load(
        layer: &encoder::Layer,
        attention: Attention,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let out = loader.linear(&layer.out)?;
        let (feed_forward, last) = match &layer.experts {
            None => {
                let (up, down) = (loader.linear(&layer.up)?, loader.linear(&layer.down)?);
                let last = (down.bias.clone(), down.rows);
                (FeedForwardParts::Plain(Box::new([up, down])), last)
            }
            Some(source) => {
                let (experts, bias) = Experts::load(source, layer, loader)?;
                (FeedForwardParts::Experts(experts), (bias, out.rows))
            }
        };
        Ok(Self {
            qkv: loader.fused_qkv(layer, &attention.shape)?,
            head_norms: HeadNorms::load(layer, &attention.shape, loader)?,
            rotary: layer.rotary.clone(),
            attention,
            around_attention: Around::load(&layer.attention_norms, (&out.bias, out.rows), loader)?,
            out,
            around_feed_forward: Around::load(
                &layer.feed_forward_norms,
                (&last.0, last.1),
                loader,
            )?,
            feed_forward,
        })
    }

    /// Returns the layer's rows for those of the layer before.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        config: &EncoderConfig,
        sequences: &mut Sequences<'_>,
    ) -> Result<Tensor> {
        let attended = self
            .around_attention
            .run(hidden, |x| self.attend(x, sequences))?;
        self.around_feed_forward
            .run(&attended, |x| self.feed_forward(x, config.feed_forward))
    }

    fn attend(&self, x: &Tensor, sequences: &mut Sequences<'_>) -> Result<Tensor> {
        let rows = self.qkv.rows;
        let mut qkv = self.head_norms.apply(self.qkv.forward(x)?)?;
        if let Some(rotary) = &self.rotary {
            let shape = &self.attention.shape;
            let heads = (shape.n_heads + shape.n_key_heads, shape.head_size);
            qkv = rows.turn(qkv, &sequences.angles(rotary)?, heads, rotary.pairs)?;
        }
        let contexts = self.attention.attend(&qkv, sequences.offsets, rows)?;
        self.out.product(&contexts)
    }

    fn feed_forward(&self, x: &Tensor, shape: FeedForward) -> Result<Tensor> {
        let [up, down] = match &self.feed_forward {
            FeedForwardParts::Plain(both) => &**both,
            FeedForwardParts::Experts(experts) => return experts.forward(x, shape.activation),
        };
        let (wide, rows) = (up.product(x)?, up.rows);
        let wide = match shape.gate {
            None => rows.activate(wide, &up.bias, shape.activation)?,
            Some(gate) => {
                let wide = rows.add_bias(wide, &up.bias)?;
                rows.gate(&wide, gate, shape.activation)?
            }
        };
        down.product(&wide)
    }
}
