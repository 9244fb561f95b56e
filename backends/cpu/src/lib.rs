//! Runs the encoders that `embedgate_core::encoder` describes, embedders and cross-encoders alike, on the CPU in f32, bfloat16
//! or bytes, straight from their own weights.
//!
//! [`CpuBackend`] is the backend. Sequences are packed: tokens lie back to back, there is no padding. Matrix products are
//! oneDNN's, with weights packed once at the load; everything between them is done here, in one pass each.
//! The candle backend computes the same with a library of its own, and is what this one is held to.

mod attention;
mod buffers;
mod ceiling;
mod classifier;
mod compiled;
mod core_assignments;
mod encoder;
mod halt;
mod heads;
mod linear;
mod load;
mod memory;
mod model;
mod onednn;
mod precision;
pub mod runtime;
mod splade;
mod table;
mod threads;
mod vector;

use std::{ops::ControlFlow, sync::Arc};

use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, ModelFolder, Outputs, Pause, Pooling,
    Precision, Replicas, TokenBatch, machine::cores::Core,
};
use embedgate_weights::Weights;

pub use crate::{
    ceiling::{ceiling, runs},
    encoder::STEP_ROWS,
    onednn::{Instructions, Library},
    precision::{fastest, is_fast, of_attention},
};
use crate::{
    encoder::{Encoder, workspace::Workspace},
    halt::Halt,
    heads::Heads,
    load::{LoadError, Loader},
    model::Model,
    threads::Threads,
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

/// An encoder with its heads, and the memory and threads to run it.
pub struct CpuBackend {
    model: Arc<Model>,
    workspace: Workspace,
    threads: Arc<Threads>,
    /// Runs what is short while a long batch rests, on the same threads.
    aside: Option<Box<CpuBackend>>,
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
        let described = folder.check_description();
        described.map_err(|e| BackendError::Load(e.to_string()))?;
        let load_error = |e: LoadError| BackendError::Load(e.to_string());
        let weights = Weights::of_encoder(folder).map_err(|e| load_error(e.into()))?;
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
            let longest = options.max_sequence_tokens;
            let encoder = Encoder::load(&folder.encoder, longest, &loader)?;
            let skip = options.special_token_ids;
            let heads = Heads::load(folder, &loader, options.pooling, skip)?;
            Ok((encoder, heads))
        });
        let (encoder, heads) = loaded.map_err(load_error)?;
        let bytes = encoder.bytes() + heads.bytes();
        tracing::debug!(bytes, "weights take {} MiB", bytes >> 20);
        let outputs = heads.outputs();
        let (most_tokens, of) = (options.max_sequence_tokens, (outputs, options.pooling));
        let info = BackendInfo {
            precision: options.precision,
            ..BackendInfo::of_encoder("cpu", &folder.encoder, of, most_tokens)
        };
        let model = Model {
            info,
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
        pause: &mut halt::Pause<'_>,
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
