//! The options of a model.

use std::path::PathBuf;

use embedgate_core::{Pooling, Precision};

use crate::{device::Device, runtime::Libraries};

/// The options that are chosen when a model is loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The model file; none means to look in the model folder.
    pub file: Option<PathBuf>,
    /// The device that runs the model.
    pub device: Device,
    /// Chooses among the folder's models; a model that states its precision must be in it.
    pub precision: Precision,
    /// The places of ONNX Runtime and its plugins.
    pub libraries: Libraries,
    /// The method that makes the dense vector of token vectors, where the model leaves that open; a cross-encoder has
    /// none.
    pub pooling: Pooling,
    /// Longest sequence in tokens, special tokens included.
    pub max_sequence_tokens: usize,
    /// Token ids that never get a sparse weight, sorted: the tokenizer's cls, eos, pad and unk.
    pub special_token_ids: Vec<u32>,
    /// Threads within one operation.
    pub threads: usize,
    /// The folder to keep files in: copies of those that are mapped, and weights as they are packed for this processor.
    pub state_folder: Option<PathBuf>,
    /// True where all sessions of the model are to share weights packed for the processor, which needs the state folder.
    pub shares_weights: bool,
}
