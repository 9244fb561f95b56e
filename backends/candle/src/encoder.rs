//! The forward pass of an encoder over packed sequences, by its description.
//!
//! Tensors are 2-dimensional, `(tokens of all sequences, width)`. Only attention knows where a sequence begins and ends.

mod experts;
mod layer;
mod queries;

use candle_core::{Result, Tensor};
use embedgate_core::{EncoderConfig, TokenBatch, encoder};
use embedgate_weights::WeightsError;

use self::layer::{Layer, Sequences};
use crate::{linear::Linear, load::Loader, norm::Norm, rows::TensorOptions};

/// The weights of an encoder.
pub(crate) struct Encoder {
    config: EncoderConfig,
    tensor_options: TensorOptions,
    word: Tensor,
    position: Option<Tensor>,
    segment: Option<Tensor>,
    norm: Option<Norm>,
    projection: Option<Linear>,
    layers: Vec<Layer>,
    final_norm: Option<Norm>,
}

impl Encoder {
    /// Reads the weights. Sequences have at most `longest` tokens.
    pub(crate) fn load(
        config: &EncoderConfig,
        longest: usize,
        loader: Loader<'_>,
    ) -> std::result::Result<Self, WeightsError> {
        let embeddings = &config.embeddings;
        let width = embeddings.width;
        let layers = Layer::load_all(config, longest, loader)?;
        let prefixes = config.layers.iter().map(encoder::Layer::prefix);
        loader.weights.check_read(prefixes)?;
        let positions = embeddings.positions.as_ref();
        let segments = embeddings.segments.as_ref();
        let norm = |norm: &Option<_>| {
            norm.as_ref()
                .map(|norm| loader.norm(norm, None))
                .transpose()
        };
        let projection = embeddings.projection.as_ref();
        Ok(Self {
            word: loader.table(&embeddings.words, width, embeddings.factor)?,
            position: positions
                .map(|positions| loader.table(&positions.table, width, 1.0))
                .transpose()?,
            segment: segments
                .map(|table| loader.table(table, width, 1.0))
                .transpose()?,
            norm: norm(&embeddings.norm)?,
            projection: projection.map(|linear| loader.linear(linear)).transpose()?,
            layers,
            final_norm: norm(&config.final_norm)?,
            tensor_options: loader.tensor_options.clone(),
            config: config.clone(),
        })
    }

    /// Returns the last hidden states of all tokens, shape `(tokens, hidden_size)`.
    pub(crate) fn forward(&self, batch: &TokenBatch) -> Result<Tensor> {
        let mut hidden = self.embed_tokens(batch)?;
        let mut sequences = Sequences::new(batch.offsets(), &self.tensor_options);
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &self.config, &mut sequences)?;
        }
        match &self.final_norm {
            Some(norm) => norm.apply(&hidden),
            None => Ok(hidden),
        }
    }

    fn embed_tokens(&self, batch: &TokenBatch) -> Result<Tensor> {
        let (device, rows) = (&self.tensor_options.device, self.tensor_options.rows);
        let taken = |table: &Tensor, ids: &[u32]| table.index_select(&Tensor::new(ids, device)?, 0);
        let mut sum = taken(&self.word, batch.ids())?;
        if let Some(table) = &self.position {
            let positions = batch.iter().flat_map(|s| self.config.position_ids(s.ids));
            let positions: Vec<u32> = positions.collect();
            sum = rows.add(sum, &taken(table, &positions)?)?;
        }
        if let Some(table) = &self.segment {
            sum = rows.add(sum, &taken(table, batch.type_ids())?)?;
        }
        if let Some(norm) = &self.norm {
            sum = norm.apply(&sum)?;
        }
        match &self.projection {
            Some(projection) => projection.forward(&sum),
            None => Ok(sum),
        }
    }
}
