//! Runs BERT, RoBERTa and XLM-RoBERTa encoders, embedders and cross-encoders alike, on NVIDIA's cards in f16 or bfloat16, straight from
//! their own weights.
//!
//! [`CudaBackend`] is the backend. Sequences are packed: tokens lie back to back, there is no padding. The kernels are embedgate's own
//! (`kernels/kernels.py`), compiled ahead of time and part of the program: it needs NVIDIA's driver, and none of CUDA's libraries.
//! A kernel that does not give right results on a card, with its driver, is not used there.
//!
//! The modules in reading order: `encoder` is the forward pass, `linear`, `products` and `heads` its parts, `load` reads the weights; `kernels` chooses
//! what `library` holds by what `selftest` says; `calls` launches them; `device` is what the driver gives, by the functions of `ffi`.

mod calls;
mod device;
mod encoder;
mod error;
mod examine;
mod ffi;
mod format;
mod heads;
mod kernels;
mod library;
mod linear;
mod load;
mod model;
mod parts;
mod products;
mod selftest;

use std::sync::Arc;

use embedgate_core::{
    Backend, BackendError, BackendInfo, EmbeddingBatch, ModelFolder, Outputs, Pooling, Replicas,
    TokenBatch,
};

pub use crate::{
    device::Device,
    error::DriverError,
    examine::{Finding, Forms, Speed, examine, product_speeds},
    format::Format,
};
use crate::{
    device::Stream,
    encoder::workspace::Workspace,
    heads::results::{Hidden, Results},
    library::Library,
    load::LoadError,
    model::Model,
    parts::{join, parts},
};

/// Settings of a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way from token vectors to the dense vector; a cross-encoder has none.
    pub pooling: Pooling,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Token ids that never get a sparse weight, sorted: the tokenizer's cls, eos, pad and unk.
    pub special_token_ids: Vec<u32>,
    /// The format of weights and rows.
    pub format: Format,
    /// Tokens that go through the model at once. Less where there is no memory for so many; a longer batch goes in parts.
    pub max_batch_tokens: usize,
    /// Rows of the measurements by which the fastest kernels are chosen; with 0 nothing is measured.
    pub timed_rows: usize,
}

/// An encoder with its heads, and the memory and the stream to run it.
pub struct CudaBackend {
    model: Arc<Model>,
    stream: Stream,
    workspace: Workspace,
    results: Results,
}

impl CudaBackend {
    /// Loads the encoder and its heads, a cross-encoder's, or bge-m3's where the folder has them, onto the device of this number. Progress
    /// goes to the log.
    ///
    /// # Errors
    /// [`BackendError::Load`] names the file and what is wrong with it, or what the driver says.
    pub fn load(
        folder: &ModelFolder,
        device: &Arc<Device>,
        number: usize,
        options: Options,
    ) -> Result<Self, BackendError> {
        let load_error = |e: LoadError| BackendError::Load(e.to_string());
        let model = Model::load(folder, device, number, options).map_err(load_error)?;
        let backend = Self::of(Arc::new(model)).map_err(|e| load_error(e.into()))?;
        tracing::debug!(
            "weights take {} MiB, batches go in {} tokens",
            backend.model.encoder.bytes() >> 20,
            backend.workspace.most_tokens
        );
        Ok(backend)
    }

    /// A backend with as much memory for batches as the device has, up to what was asked for.
    fn of(model: Arc<Model>) -> Result<Self, DriverError> {
        let least = model.info.max_sequence_tokens;
        // Kernels number with 32 bits; a model of so long sequences is refused when it is loaded.
        let most = (i32::MAX as usize / model.encoder.widest()).max(least);
        let mut tokens = model.max_batch_tokens.clamp(least, most);
        let stream = Stream::new(&model.device)?;
        loop {
            let workspace = Workspace::new(&model.encoder, &model.device, tokens);
            let results = Results::new(&model.device, &model.encoder, tokens);
            match workspace.and_then(|workspace| Ok((workspace, results?))) {
                Ok((workspace, results)) => {
                    return Ok(Self {
                        model,
                        stream,
                        workspace,
                        results,
                    });
                }
                Err(error) if error.is_out_of_memory() && tokens > least => {
                    tokens = (tokens / 2).max(least);
                    tracing::warn!(
                        "{} has little free memory: batches go in {tokens} tokens",
                        model.device.name
                    );
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Tokens that go through the model at once: as many as were asked for, or as there is memory for.
    #[must_use]
    pub fn most_tokens(&self) -> usize {
        self.workspace.most_tokens
    }

    /// Runs sequences that fit into the workspace.
    fn run(&mut self, batch: &TokenBatch, outputs: Outputs) -> Result<EmbeddingBatch, DriverError> {
        let (model, stream, heads) = (&self.model, &self.stream, &self.model.heads);
        let selection = heads.selection(outputs);
        model
            .encoder
            .forward(stream, batch, selection, &mut self.workspace)?;
        let hidden = Hidden {
            stream,
            rows: self.workspace.hidden(),
            selection,
            batch,
            sequences: self.workspace.sequences(),
            results: &self.results,
        };
        let mut results = EmbeddingBatch::default();
        for head in outputs.iter() {
            if let Some(column) = heads.column(head, hidden)? {
                results.columns.set(head, column);
            }
        }
        Ok(results)
    }
}

impl Backend for CudaBackend {
    fn info(&self) -> &BackendInfo {
        &self.model.info
    }

    fn embed(
        &mut self,
        batch: &TokenBatch,
        outputs: Outputs,
    ) -> Result<EmbeddingBatch, BackendError> {
        self.model.info.check(batch, outputs)?;
        let most_tokens = self.workspace.most_tokens;
        let mut run = |part: &TokenBatch| {
            self.run(part, outputs).map_err(|error| {
                // What was begun shall not go on beside the next batch; if it cannot be waited for, it has ended.
                drop(self.stream.wait());
                error.of_batch()
            })
        };
        if batch.n_tokens() <= most_tokens {
            return run(batch);
        }
        let results = parts(batch, most_tokens)
            .iter()
            .map(run)
            .collect::<Result<_, _>>();
        results.map(join)
    }

    fn replicas(&self) -> Option<Replicas> {
        let model = Arc::clone(&self.model);
        Some(Arc::new(move || {
            let backend = Self::of(Arc::clone(&model));
            Ok(Box::new(backend.map_err(
                |error| match error.is_lasting() {
                    true => error.of_batch(),
                    false => BackendError::Load(error.to_string()),
                },
            )?))
        }))
    }
}

/// Names the kernels that ship: other sources give another name.
#[must_use]
pub fn kernels_id() -> String {
    Library::sources()
}
