//! Runs the encoders that `embedgate_core::encoder` describes, embedders and cross-encoders alike, with candle, straight from
//! their own weights, on the processor. Own operations make f32 fast there; the others are candle's stock ones, in any format and on any device
//! that candle has.
//!
//! [`CandleBackend`] is the backend. Sequences are packed: tokens lie back to back, there is no padding anywhere.

mod attention;
mod card;
mod classifier;
mod encoder;
mod heads;
mod linear;
mod load;
mod norm;
mod ops;
mod options;
mod rows;
mod splade;

use candle_core::Tensor;
use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, ModelFolder, Outputs, TokenBatch,
};
use embedgate_weights::{Weights, WeightsError};

pub use crate::{card::check_card, options::Options};
use crate::{encoder::Encoder, heads::Heads, load::Loader};

/// An encoder with its heads.
pub struct CandleBackend {
    info: BackendInfo,
    encoder: Encoder,
    heads: Heads,
    /// Matrix products and row-wise arithmetic run on the rayon pool that they are called in: this bounds their threads.
    pool: rayon::ThreadPool,
}

impl CandleBackend {
    /// Loads the encoder and its heads: a cross-encoder's, or bge-m3's where the folder has them. Progress goes to the
    /// log.
    ///
    /// # Errors
    /// [`BackendError::Load`] names the file and what is wrong with it.
    pub fn load(folder: &ModelFolder, options: Options) -> Result<Self, BackendError> {
        let described = folder.check_description();
        described.map_err(|e| BackendError::Load(e.to_string()))?;
        let tensor_options = options.tensor_options()?;
        let on_card = options.card.map(|number| format!("cuda:{number}"));
        let weights = Weights::of_encoder(folder).map_err(load_error)?;
        let loader = Loader {
            weights: &weights,
            tensor_options: &tensor_options,
        };
        let encoder = Encoder::load(&folder.encoder, options.max_sequence_tokens, loader);
        let encoder = encoder.map_err(load_error)?;
        let special_token_ids = options.special_token_ids;
        let heads = Heads::load(folder, loader, options.pooling, special_token_ids);
        let heads = heads.map_err(load_error)?;
        let outputs = heads.outputs();
        let at_most = candle_core::utils::get_num_threads();
        if options.threads > at_most {
            let threads = options.threads;
            tracing::warn!(
                threads,
                at_most,
                "candle splits a product over {at_most} threads at most, not {threads}"
            );
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("candle-{i}"))
            .build()
            .map_err(|e| {
                BackendError::Load(format!("cannot start {} threads: {e}", options.threads))
            })?;
        let (most_tokens, of) = (options.max_sequence_tokens, (outputs, options.pooling));
        let mut info = BackendInfo {
            precision: options.precision,
            ..BackendInfo::of_encoder("candle", &folder.encoder, of, most_tokens)
        };
        if let Some(card) = on_card {
            info.device = card;
        }
        Ok(Self {
            info,
            encoder,
            heads,
            pool,
        })
    }

    fn results(
        &self,
        hidden: &Tensor,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> candle_core::Result<EmbeddingBatch> {
        let columns = outputs.iter();
        let columns = columns.map(|head| Ok((head, self.heads.column(head, hidden, batch)?)));
        let columns = columns.collect::<candle_core::Result<_>>()?;
        Ok(EmbeddingBatch { columns })
    }
}

impl CandleBackend {
    /// Tries the card with a sequence that has room anywhere.
    fn still_works(&self) -> bool {
        let batch: TokenBatch = std::iter::once([0_u32, 0].as_slice()).collect();
        self.pool.install(|| self.encoder.forward(&batch).is_ok())
    }
}

impl Backend for CandleBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.info.check(batch, outputs)?;
        let result = self.pool.install(|| {
            let hidden = self.encoder.forward(batch)?;
            self.results(&hidden, batch, outputs)
        });
        let what = "the candle forward pass failed";
        result.map_err(|e| match self.info.device == "cpu" || self.still_works() {
            true => BackendError::inference(what, e),
            false => BackendError::Lost {
                what,
                source: e.into(),
            },
        })
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
fn load_error(error: WeightsError) -> BackendError {
    BackendError::Load(error.to_string())
}
