//! One layer of an encoder: its weights, and all that it does beside attention.

use std::ops::Range;

use embedgate_core::encoder::{self, EncoderConfig, FeedForward, Reach};

use super::{
    around::{Around, Stream},
    experts::Experts,
    workspace::Workspace,
};
use crate::{
    attention::distances::{DistanceTable, LayerDistances},
    buffers::OnRow,
    linear::Linear,
    load::{LoadError, Loader},
    onednn::{Format, OneDnnError},
    precision::operands,
    vector::{Norm, QueryParts, Rounded, prepare_queries},
};

/// The weights of a layer.
pub(super) struct Layer {
    pub(super) around_attention: Around,
    pub(super) qkv: Linear,
    /// Normalizations of queries and keys, each with its columns.
    query_norms: Vec<(Range<usize>, Norm)>,
    /// The number of the layer's rotation among those of the encoder.
    rotation: Option<usize>,
    /// Numbers of queries and keys of a row, and of a head.
    query_sizes: [usize; 2],
    pub(super) reach: Reach,
    pub(super) distances: Option<LayerDistances>,
    out: Linear,
    around_feed_forward: Around,
    /// The first and the second layer; none where there are experts.
    plain: Option<[Linear; 2]>,
    experts: Option<Experts>,
    feed_forward: FeedForward,
}

impl Layer {
    /// Loads a layer with the rotation of this number, and with the model's vectors by distance.
    pub(super) fn load(
        config: &EncoderConfig,
        layer: &encoder::Layer,
        (rotation, distances): (Option<usize>, Option<&DistanceTable>),
        loader: &Loader<'_>,
    ) -> Result<Self, LoadError> {
        let (attention, feed_forward) = (&config.attention, config.feed_forward);
        let activations = operands(loader.activations);
        // The gate comes before the activation.
        let activation = match feed_forward.gate {
            Some(_) => None,
            None => Some(feed_forward.activation),
        };
        Ok(Self {
            around_attention: Around::load(&layer.attention_norms, loader)?,
            qkv: loader.fused_qkv(layer, attention)?,
            query_norms: loader.query_norms(layer, attention)?,
            rotation,
            query_sizes: [
                attention.query_width() + attention.key_width(),
                attention.head_size,
            ],
            reach: layer.reach,
            distances: distances
                .map(|table| LayerDistances::load(table, layer, attention, loader))
                .transpose()?,
            out: loader.linear(&layer.out, None, Format::F32)?,
            around_feed_forward: Around::load(&layer.feed_forward_norms, loader)?,
            plain: match layer.experts {
                Some(_) => None,
                None => Some([
                    loader.linear(&layer.up, activation, activations)?,
                    loader.linear(&layer.down, None, Format::F32)?,
                ]),
            },
            experts: Experts::load(config, layer, loader)?,
            feed_forward,
        })
    }

    /// Returns the size of the weights, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let all = [&self.qkv, &self.out]
            .into_iter()
            .chain(self.plain.iter().flatten());
        let distances = self.distances.as_ref().map_or(0, LayerDistances::bytes);
        let experts = self.experts.as_ref().map_or(0, Experts::bytes);
        all.map(Linear::bytes).sum::<usize>() + distances + experts
    }

    /// Normalizes and turns the queries and keys of these rows.
    pub(super) fn prepare_queries(&self, step: Range<usize>, workspace: &mut Workspace) {
        if self.query_norms.is_empty() && self.rotation.is_none() {
            return;
        }
        let [width, head_size] = self.query_sizes;
        let queries = Queries {
            places: &workspace.places,
            parts: QueryParts {
                norms: &self.query_norms,
                angles: self.rotation.map(|i| &workspace.angles[i]),
                width,
                head_size,
            },
        };
        workspace.qkv.for_each_row(step, width, &queries);
    }

    /// Computes the part of the layer after attention, for the rows of one step; then the next layer's queries, keys
    /// and values of these rows.
    pub(super) fn finish(
        &self,
        next: Option<&Self>,
        step: Range<usize>,
        workspace: &mut Workspace,
    ) -> Result<(), OneDnnError> {
        let Workspace {
            x,
            qkv,
            contexts,
            wide,
            rounding,
            added,
            gathered,
            ..
        } = &mut *workspace;
        let (width, rows) = (self.out.outer(), 0..step.len());
        let x = &mut x[step.start * width..step.end * width];
        let mut stream = Stream { x, width, added };
        let (attention, feed_forward) = (&self.around_attention, &self.around_feed_forward);
        let contexts = rounding.operand(contexts, step.clone());
        attention.add(&self.out, contexts, &mut stream)?;
        let read = attention.end(Some(feed_forward), rounding, stream.x, width);
        if let Some([up, down]) = &self.plain {
            up.forward(read, wide.target(rows.clone()))?;
            let wide = match self.feed_forward.gate {
                Some(_) => rounding.gated(wide, rows, self.feed_forward),
                None => rounding.operand(wide, rows),
            };
            feed_forward.add(down, wide, &mut stream)?;
        }
        if let Some(experts) = &self.experts {
            experts.add(stream.x, (rounding, wide), gathered)?;
        }
        let next_attention = next.map(|next| &next.around_attention);
        let read = feed_forward.end(next_attention, rounding, stream.x, width);
        if let Some(next) = next {
            next.qkv.forward(read, qkv.target(step.clone()))?;
            next.prepare_queries(step, workspace);
        }
        Ok(())
    }
}

/// The queries and keys of tokens.
struct Queries<'a> {
    /// The place of each token in its sequence.
    places: &'a [u32],
    parts: QueryParts<'a>,
}

impl OnRow for Queries<'_> {
    fn run<T: Rounded>(&self, number: usize, row: &mut [T], spare: &mut [f32]) {
        // Rows behind those of tokens are no queries.
        if let Some(place) = self.places.get(number) {
            prepare_queries(row, *place as usize, self.parts, spare);
        }
    }
}
