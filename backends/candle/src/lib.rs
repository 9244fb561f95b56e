//! Runs BERT, RoBERTa and XLM-RoBERTa encoders, embedders and cross-encoders alike, with candle, straight from their own
//! weights, on the processor. Own operations make f32 fast there; the others are candle's stock ones, in any format and on any device
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
mod ops;
mod options;
mod rows;

use candle_core::{DType, Tensor};
use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, Layout, Matrix, ModelFolder, Outputs,
    Pooling, TokenBatch,
};
use embedgate_weights::{Weights, WeightsError};

pub use crate::{card::check_card, options::Options};
use crate::{encoder::Encoder, heads::Heads, load::Loader};

/// An encoder with its heads.
pub struct CandleBackend {
    info: BackendInfo,
    pooling: Pooling,
    special_token_ids: Vec<u32>,
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
        let place = options.place()?;
        let on_card = options.card.map(|number| format!("cuda:{number}"));
        let weights = Weights::open(&folder.path).map_err(load_error)?;
        let loader = Loader {
            weights: &weights,
            place: &place,
        };
        let encoder = Encoder::load(&folder.encoder, loader).map_err(load_error)?;
        let heads = Heads::load(folder, loader).map_err(load_error)?;
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
        let info = BackendInfo {
            backend: "candle",
            device: on_card.unwrap_or_else(|| "cpu".into()),
            precision: options.precision,
            dimensions: if outputs.dense {
                folder.encoder.hidden_size
            } else {
                0
            },
            outputs,
            max_sequence_tokens: options
                .max_sequence_tokens
                .min(folder.encoder.max_sequence_tokens()),
            vocabulary_size: folder.encoder.vocabulary_size,
            type_vocabulary_size: folder.encoder.type_vocabulary_size,
            layout: Layout::Packed,
        };
        let Options {
            pooling,
            special_token_ids,
            ..
        } = options;
        Ok(Self {
            info,
            pooling,
            special_token_ids,
            encoder,
            heads,
            pool,
        })
    }

    /// Pools each sequence of `hidden`, which holds the rows of all sequences back to back.
    fn dense(&self, hidden: &[f32], batch: &TokenBatch) -> Matrix {
        let width = self.info.dimensions;
        let mut dense = Matrix::zeros(batch.len(), width);
        for (i, ends) in batch.offsets().windows(2).enumerate() {
            self.pooling
                .pool(&hidden[ends[0] * width..ends[1] * width], dense.row_mut(i));
        }
        dense
    }

    /// The rows of each sequence in a matrix of its own.
    fn token_vectors(&self, hidden: &[f32], batch: &TokenBatch) -> Vec<Matrix> {
        let width = self.info.dimensions;
        let ends = batch.offsets().windows(2);
        ends.map(|ends| Matrix {
            data: hidden[ends[0] * width..ends[1] * width].to_vec(),
            width,
        })
        .collect()
    }

    fn results(
        &self,
        hidden: &Tensor,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> candle_core::Result<EmbeddingBatch> {
        let mut results = EmbeddingBatch::default();
        if outputs.dense || outputs.token_vectors {
            let rows = hidden.flatten_all()?.to_dtype(DType::F32)?;
            let rows: Vec<f32> = rows.to_vec1()?;
            results.dense = outputs.dense.then(|| self.dense(&rows, batch));
            results.token_vectors = outputs
                .token_vectors
                .then(|| self.token_vectors(&rows, batch));
        }
        if outputs.sparse {
            results.sparse = Some(self.heads.sparse(hidden, batch, &self.special_token_ids)?);
        }
        if outputs.multi_vector {
            results.multi_vector = Some(self.heads.multi_vector(hidden, batch)?);
        }
        if outputs.score {
            results.scores = Some(self.heads.scores(hidden, batch)?);
        }
        Ok(results)
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
