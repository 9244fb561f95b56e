//! Writes an encoder as an ONNX model, in f32 or int8, with its large tensors in a file of their own.
//!
//! The graph is ONNX (opset 17) with one operator of ONNX Runtime's own, attention without a score matrix, in a branch for
//! batches without padding. Normalization and GELU are in the shapes that ONNX Runtime fuses. It takes `input_ids` and
//! `attention_mask` (and `token_type_ids` where the model has segments), each `(batch, length)` of int64, and gives
//! `last_hidden_state` `(batch, length, width)`; with bge-m3's heads also `sparse_weights` `(batch, length, 1)`, after
//! ReLU, and `colbert_vecs` `(batch, length, width)`, the first token included, neither masked nor normalized. A
//! cross-encoder's gives `logits` `(batch, 1)` alone, without a sigmoid.
//!
//! In int8, the products of the encoder's layers are of bytes, and the token table is stored as bytes; a scale belongs to
//! each output of a layer, to each token that is multiplied with it and to each row of the table. Attention,
//! normalization and heads stay in f32. ONNX Runtime's own `MatMulIntegerToFloat` multiplies.

mod attributes;
mod data;
mod graph;
mod heads;
mod layers;
mod products;
mod quantize;
mod tensors;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use embedgate_core::{EncoderConfig, Precision};
use prost::Message;
use thiserror::Error;

use self::{
    data::DataFile,
    graph::{Builder, CONTRIBUTED},
    tensors::Tensors,
};
use crate::proto::{Entry, Model, OperatorSet};

/// The files of a written model, both in one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// The model: graph and small tensors.
    pub model: &'static str,
    /// Large tensors. The model refers to it by this name.
    pub data: &'static str,
}

impl Files {
    /// The files of a precision, named as the hubs name them. None for one that no model is written in.
    #[must_use]
    pub const fn of(precision: Precision) -> Option<Self> {
        let (model, data) = match precision {
            Precision::F32 => ("model.onnx", "model.onnx_data"),
            Precision::Int8 => ("model_int8.onnx", "model_int8.onnx_data"),
            Precision::F16 | Precision::Bf16 => return None,
        };
        Some(Self { model, data })
    }
}

/// What wrote the models that are written here.
pub(crate) const PRODUCER: &str = "embedgate";
/// The key of their metadata that states their precision.
pub(crate) const PRECISION: &str = "precision";
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
    /// ONNX models are written in f32 and in int8.
    #[error("no ONNX model is written in {0}: f32 and int8 are")]
    Precision(Precision),
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

/// Writes the [`Files`] of a precision into `folder` and flushes both to the disk.
///
/// # Errors
/// [`ConvertError`] when a tensor cannot be read or a file not be written; what was written then is of no use.
pub fn write(
    folder: &Path,
    encoder: &EncoderConfig,
    heads: Heads,
    precision: Precision,
    read: &mut ReadTensor<'_>,
) -> Result<(), ConvertError> {
    let files = Files::of(precision).ok_or(ConvertError::Precision(precision))?;
    let data = DataFile::create(&folder.join(files.data))?;
    let mut builder = Builder::new(Tensors::new(data, read), precision);
    let hidden = layers::encoder(&mut builder, encoder)?;
    heads::heads(&mut builder, encoder, heads, &hidden)?;
    let graph = builder.finish()?;
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: PRODUCER.into(),
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
            key: PRECISION.into(),
            value: precision.to_string(),
        }],
    };
    let path = folder.join(files.model);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&model.encode_to_vec())?;
        file.sync_all()
    });
    written.map_err(|source| ConvertError::Write { path, source })
}
