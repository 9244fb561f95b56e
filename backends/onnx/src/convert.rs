//! Writes an encoder as an ONNX model, f32, with its large tensors in a file of their own.
//!
//! The graph is ONNX (opset 17) with one operator of ONNX Runtime's own, attention without a score matrix, in a branch for
//! batches without padding. Normalization and GELU are in the shapes that ONNX Runtime fuses. It takes `input_ids` and
//! `attention_mask` (and `token_type_ids` where the model has segments), each `(batch, length)` of int64, and gives
//! `last_hidden_state` `(batch, length, width)`; with bge-m3's heads also `sparse_weights` `(batch, length, 1)`, after
//! ReLU, and `colbert_vecs` `(batch, length, width)`, the first token included, neither masked nor normalized. A
//! cross-encoder's gives `logits` `(batch, 1)` alone, without a sigmoid.

mod data;
mod graph;
mod heads;
mod layers;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use embedgate_core::EncoderConfig;
use prost::Message;
use thiserror::Error;

use self::{
    data::DataFile,
    graph::{Builder, CONTRIBUTED},
};
use crate::proto::{Entry, Model, OperatorSet};

/// Name of the file of large tensors, beside the model.
pub const DATA_FILE: &str = "model.onnx_data";
/// Name of the model file.
pub const MODEL_FILE: &str = "model.onnx";
/// 17 brought `LayerNormalization`; newer ones bring nothing that the encoder needs.
const OPSET: i64 = 17;
/// The file format that opset 17 came with.
const IR_VERSION: i64 = 8;

/// Why a model could not be written.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// A tensor could not be read.
    #[error("{0}")]
    Weights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Lends the numbers of a tensor, in row-major order: `read(name, shape, use_them)`.
///
/// Names are those of the encoder in transformers without its prefix, `sparse_linear.*` and `colbert_linear.*`, and those
/// of [`classifier_layers`](embedgate_core::encoder::Architecture::classifier_layers).
pub type ReadTensor<'a> = dyn FnMut(&str, &[usize], &mut dyn FnMut(&[f32]) -> io::Result<()>) -> Result<(), ConvertError>
    + 'a;

/// What is written beside the encoder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heads {
    /// The lexical weights of bge-m3.
    pub sparse: bool,
    /// The token vectors of bge-m3.
    pub multi_vector: bool,
    /// The score of a cross-encoder: it comes alone, neither the token vectors nor the other heads are written then.
    pub score: bool,
}

/// Writes `model.onnx` and `model.onnx_data` into `folder` and flushes both to the disk.
///
/// # Errors
/// [`ConvertError`] when a tensor cannot be read or a file not be written; what was written then is of no use.
pub fn write(
    folder: &Path,
    encoder: &EncoderConfig,
    heads: Heads,
    read: &mut ReadTensor<'_>,
) -> Result<(), ConvertError> {
    let data = DataFile::create(&folder.join(DATA_FILE))?;
    let mut builder = Builder::new(data, read);
    let hidden = layers::encoder(&mut builder, encoder)?;
    heads::heads(&mut builder, encoder, heads, &hidden)?;
    let graph = builder.finish()?;
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "embedgate".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![
            OperatorSet {
                domain: String::new(),
                version: OPSET,
            },
            OperatorSet {
                domain: CONTRIBUTED.into(),
                version: 1,
            },
        ],
        metadata_props: vec![Entry {
            key: "precision".into(),
            value: "f32".into(),
        }],
    };
    let path = folder.join(MODEL_FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&model.encode_to_vec())?;
        file.sync_all()
    });
    written.map_err(|source| ConvertError::Write { path, source })
}
