//! Runs BERT, RoBERTa and XLM-RoBERTa encoders, embedders and cross-encoders alike, on the CPU in f32, bfloat16 or bytes,
//! straight from their own weights.
//!
//! [`CpuBackend`] is the backend. Sequences are packed: tokens lie back to back, there is no padding. Matrix products are
//! oneDNN's, with weights packed once at the load; everything between them is done here, in one pass each.
//! The candle backend computes the same with a library of its own, and is what this one is held to.

mod attention;
mod buffers;
mod ceiling;
mod compiled;
mod encoder;
mod heads;
mod linear;
mod load;
mod onednn;
mod places;
mod precision;
pub mod runtime;
mod table;
mod vector;

use std::{ops::ControlFlow, sync::Arc};

use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, Layout, Matrix, ModelFolder, Outputs,
    Pause, Pooling, Precision, Replicas, TokenBatch, cores::Core,
};
use embedgate_weights::Weights;

use crate::{
    attention::Which,
    encoder::{Encoder, Halt, Workspace},
    heads::Heads,
    load::{LoadError, Loader},
    places::{PLACES, Place},
};
pub use crate::{
    ceiling::{ceiling, runs},
    encoder::STEP_ROWS,
    onednn::{Instructions, Library},
    precision::of_attention,
};

/// The options that are chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The method that makes the dense vector of token vectors; a cross-encoder has none.
    pub pooling: Pooling,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Token ids that never get a sparse weight, sorted: the tokenizer's cls, eos, pad and unk.
    pub special_token_ids: Vec<u32>,
    /// Threads of a forward pass.
    pub threads: usize,
    /// Cores that the threads stay on, each on the one with the fewest threads then; none leaves them to the system.
    pub cores: Vec<Core>,
    /// Number format of the encoder's matrix products.
    pub precision: Precision,
}

/// A model's weights and what is known of it, which any number of backends share.
struct Model {
    info: BackendInfo,
    pooling: Pooling,
    special_token_ids: Vec<u32>,
    threads: usize,
    cores: Vec<Core>,
    encoder: Encoder,
    heads: Heads,
}

/// An encoder with its heads, and the memory and threads to run it.
pub struct CpuBackend {
    model: Arc<Model>,
    workspace: Workspace,
    threads: Arc<Threads>,
    /// Runs what is short while a long batch rests, on the same threads.
    aside: Option<Box<CpuBackend>>,
}

/// The threads of a replica.
struct Threads {
    pool: rayon::ThreadPool,
    /// Held, that no other replica takes the cores of the pool before there are no others.
    _place: Place,
}

impl CpuBackend {
    /// Loads the encoder and its heads: a cross-encoder's, or bge-m3's where the folder has them. Progress goes to the
    /// log.
    ///
    /// # Errors
    /// [`BackendError::Load`] names the file and what is wrong with it.
    pub fn load(
        folder: &ModelFolder,
        library: &'static Library,
        options: Options,
    ) -> Result<Self, BackendError> {
        let load_error = |e: LoadError| BackendError::Load(e.to_string());
        let weights = Weights::open(&folder.path).map_err(|e| load_error(e.into()))?;
        let of_load = |asked: Precision| {
            let message = || BackendError::Load(format!("the cpu backend does not run in {asked}"));
            precision::Precision::of(asked).ok_or_else(message)
        };
        let threads = Threads::start(options.threads, &options.cores)?;
        let loader = Loader {
            library,
            weights: &weights,
            precision: of_load(options.precision)?,
            activations: of_load(of_attention(options.precision, library.instructions()))?,
            threads: options.threads,
        };
        let loaded = threads.pool.install(|| {
            let encoder = Encoder::load(&folder.encoder, &loader)?;
            Ok((encoder, Heads::load(folder, &loader)?))
        });
        let (encoder, heads) = loaded.map_err(load_error)?;
        let bytes = encoder.bytes() + heads.bytes();
        tracing::debug!(bytes, "weights take {} MiB", bytes >> 20);
        let outputs = heads.outputs();
        let info = BackendInfo {
            backend: "cpu",
            device: "cpu".into(),
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
        let model = Model {
            info,
            pooling: options.pooling,
            special_token_ids: options.special_token_ids,
            threads: options.threads,
            cores: options.cores,
            encoder,
            heads,
        };
        Ok(Self::of(Arc::new(model), Arc::new(threads)))
    }

    fn of(model: Arc<Model>, threads: Arc<Threads>) -> Self {
        Self {
            workspace: Workspace::new(&model.encoder, model.threads),
            model,
            threads,
            aside: None,
        }
    }

    fn run(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
        pause: &mut encoder::Pause<'_>,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.model.info.check(batch, outputs)?;
        let (model, workspace) = (&self.model, &mut self.workspace);
        let pool = &self.threads.pool;
        pool.install(|| model.run(batch, outputs, workspace, pause))
            .map_err(|halt| match halt {
                Halt::Stopped => BackendError::Stopped,
                Halt::Failed(error) => BackendError::inference("the forward pass failed", error),
            })
    }
}

impl Threads {
    /// Starts threads that stay on cores of their own, of these; where there are none the system chooses.
    fn start(threads: usize, cores: &[Core]) -> Result<Self, BackendError> {
        let place = PLACES.take(threads, cores);
        let cores = place.cores.clone();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .start_handler(move |i| {
                if let Some(core) = cores.get(i)
                    && !core.pin_this_thread()
                {
                    tracing::debug!("the system does not let a thread stay on {core:?}");
                }
            })
            .thread_name(|i| format!("cpu-{i}"))
            .build()
            .map_err(|e| BackendError::Load(format!("cannot start {threads} threads: {e}")))?;
        Ok(Self {
            pool,
            _place: place,
        })
    }
}

/// The fastest precision that this processor has instructions for and that keeps cosines of 0.9999: bytes are for who asks
/// for them.
#[must_use]
pub fn fastest(instructions: Instructions) -> Precision {
    if instructions >= Instructions::Avx512Bf16 {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// Returns true when this processor has instructions for products of this precision.
#[must_use]
pub fn is_fast(precision: Precision, instructions: Instructions) -> bool {
    let least = match precision {
        Precision::F16 => return false,
        Precision::F32 => Instructions::Avx2,
        Precision::Bf16 => Instructions::Avx512Bf16,
        Precision::Int8 => Instructions::Avx512Vnni,
    };
    instructions >= least
}

impl Model {
    fn run(
        &self,
        batch: &TokenBatch,
        outputs: Outputs,
        workspace: &mut Workspace,
        pause: &mut encoder::Pause<'_>,
    ) -> Result<EmbeddingBatch, Halt> {
        let pooling = self.pooling;
        let reads_all = outputs.sparse
            || outputs.multi_vector
            || outputs.token_vectors
            || (outputs.dense && pooling != Pooling::Cls);
        let which = if reads_all { Which::All } else { Which::First };
        let hidden = self.encoder.forward(batch, which, workspace, pause)?;
        let width = self.encoder.width();
        let mut results = EmbeddingBatch::default();
        if outputs.dense {
            let mut dense = Matrix::zeros(batch.len(), width);
            for (i, ends) in batch.offsets().windows(2).enumerate() {
                let rows = match which {
                    Which::First => i..i + 1,
                    Which::All => ends[0]..ends[1],
                };
                pooling.pool(
                    &hidden[rows.start * width..rows.end * width],
                    dense.row_mut(i),
                );
            }
            results.dense = Some(dense);
        }
        if outputs.token_vectors {
            let ends = batch.offsets().windows(2);
            let rows = |e: &[usize]| Matrix {
                data: hidden[e[0] * width..e[1] * width].to_vec(),
                width,
            };
            results.token_vectors = Some(ends.map(rows).collect());
        }
        if outputs.sparse {
            let tokens = &hidden[..batch.ids().len() * width];
            results.sparse = self.heads.sparse(tokens, batch, &self.special_token_ids);
        }
        if outputs.multi_vector {
            results.multi_vector = self.heads.multi_vector(hidden, batch)?;
        }
        if outputs.score {
            // A cross-encoder gives nothing else, so that these are the rows of first tokens.
            results.scores = self.heads.scores(hidden, batch.len())?;
        }
        Ok(results)
    }
}

impl Backend for CpuBackend {
    fn info(&self) -> &BackendInfo {
        &self.model.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.run(batch, outputs, &mut || Ok(()))
    }

    fn can_pause(&self) -> bool {
        true
    }

    fn embed_with_pauses(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
        pause: &mut Pause<'_>,
    ) -> Result<EmbeddingBatch, BackendError> {
        let (model, threads) = (&self.model, &self.threads);
        let like_this = || Box::new(Self::of(Arc::clone(model), Arc::clone(threads)));
        let mut aside = self.aside.take().unwrap_or_else(like_this);
        let result = self.run(batch, outputs, &mut || match pause(&mut *aside) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Stopped),
        });
        self.aside = Some(aside);
        result
    }

    fn replicas(&self) -> Option<Replicas> {
        let model = Arc::clone(&self.model);
        Some(Arc::new(move || {
            let threads = Threads::start(model.threads, &model.cores)?;
            Ok(Box::new(Self::of(Arc::clone(&model), Arc::new(threads))))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_precision_is_one_that_the_processor_has() {
        use Instructions::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni};
        for instructions in [Avx2, Avx512, Avx512Vnni, Avx512Bf16, Amx] {
            assert!(is_fast(fastest(instructions), instructions));
        }
        assert!(!is_fast(Precision::Bf16, Avx512Vnni) && is_fast(Precision::Int8, Avx512Vnni));
        assert!(!is_fast(Precision::Int8, Avx512));
    }
}
