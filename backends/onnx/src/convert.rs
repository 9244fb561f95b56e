//! Writes an encoder as an ONNX model, in f32 or int8, with its large tensors in a file of their own.
//!
//! The graph is ONNX (opset 17) with one operator of ONNX Runtime's own, attention without a score matrix, in a branch for
//! batches without padding. Normalization and GELU are in the shapes that ONNX Runtime fuses. It takes `input_ids` and
//! `attention_mask` (and `token_type_ids` where the model has segments), each `(batch, length)` of int64, and gives
//! `last_hidden_state` `(batch, length, width)`; with bge-m3's heads also `sparse_weights` `(batch, length, 1)`, after
//! ReLU, and `colbert_vecs` `(batch, length, width)`, the first token included, neither masked nor normalized. A
//! cross-encoder's gives `logits` `(batch, 1)` alone, without a sigmoid.
//!
//! For GPUs the graph has one form of attention, of plain operators, takes `position_ids` too, and has no operation that a
//! GPU lacks but one of the mask. For NVIDIA cards there is a form without padding, whose three operators have
//! no other implementation: `RemovePadding`, `PackedMultiHeadAttention`, `RestorePadding`. Both are written in f32 or in f16,
//! and then all is in f16 but for the outputs.
//!
//! In int8, the products of the encoder's layers are of bytes, and the token table is stored as bytes; a scale belongs to
//! each output of a layer, to each token that is multiplied with it and to each row of the table. Attention,
//! normalization and heads stay in f32. ONNX Runtime's own `MatMulIntegerToFloat` multiplies.

mod attention;
mod attributes;
mod data;
mod graph;
mod heads;
mod layers;
mod products;
mod quantize;
mod tensors;
mod transposed;
mod variant;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use embedgate_core::{EncoderConfig, Outputs};
use prost::Message;
use thiserror::Error;

pub use self::variant::{Files, Target, Variant};
use self::{
    data::DataFile,
    graph::{Builder, CONTRIBUTED},
    tensors::Tensors,
};
use crate::proto::{Entry, Model, OperatorSet};

/// The producer's name in the models that are written here.
pub(crate) const PRODUCER: &str = "embedgate";
/// The key of their metadata that states their precision.
pub(crate) const PRECISION: &str = "precision";
/// 17 brought `LayerNormalization`; newer ones bring nothing that the encoder needs.
const OPSET: i64 = 17;
/// The file format that opset 17 came with.
const IR_VERSION: i64 = 8;

/// The reasons why a model could not be written.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// A tensor could not be read.
    #[error("{0}")]
    Weights(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are such models, but they are not written here.
    #[error("{}", not_written(*.0))]
    Variant(Variant),
    /// No graph of such a model is written.
    #[error(
        "no ONNX model of type {model_type} is written yet: it has {thing}; type = \"cpu\" runs its own weights"
    )]
    Unfit {
        /// The family's name in `config.json`.
        model_type: String,
        /// The first thing that it has and BERT has not.
        thing: &'static str,
    },
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause of the failure.
        #[source]
        source: io::Error,
    },
}

/// Lends the numbers of a tensor, in row-major order: `read(name, shape, use_them)`.
///
/// Names are those of the encoder's description, `sparse_linear.*` and `colbert_linear.*`.
pub type ReadTensor<'a> = dyn FnMut(&str, &[usize], &mut dyn FnMut(&[f32]) -> io::Result<()>) -> Result<(), ConvertError>
    + 'a;

/// The parts of a model that are written.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The encoder.
    pub encoder: &'a EncoderConfig,
    /// The heads that have weights: sparse and multi-vector heads are written together with the token vectors, a score is written
    /// alone.
    pub heads: Outputs,
}

/// Writes the [`Files`] of a variant into `folder` and flushes both to the disk.
///
/// # Errors
/// [`ConvertError`] when a tensor cannot be read or a file not be written; what was written then is of no use.
pub fn write(
    folder: &Path,
    variant: Variant,
    parts: Parts<'_>,
    read: &mut ReadTensor<'_>,
) -> Result<(), ConvertError> {
    let files = Files::of(variant).ok_or(ConvertError::Variant(variant))?;
    let data = DataFile::create(&folder.join(files.data))?;
    let tensors = Tensors::new(data, read, variant.is_half());
    let mut builder = Builder::new(tensors, variant);
    let hidden = layers::encoder(&mut builder, parts.encoder)?;
    heads::heads(&mut builder, parts, &hidden)?;
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
            value: variant.precision.to_string(),
        }],
    };
    let path = folder.join(files.model);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&model.encode_to_vec())?;
        file.sync_all()
    });
    written.map_err(|source| ConvertError::Write { path, source })
}

/// Names what is written for the device instead.
fn not_written(Variant { target, precision }: Variant) -> String {
    let (device, written) = match target {
        Target::Cpu => ("the processor", "f32 and int8"),
        Target::Gpu => ("GPUs", "f32 and f16"),
        Target::CudaPacked => ("NVIDIA cards without padding", "f32 and f16"),
    };
    format!("no ONNX model for {device} is written in {precision}: {written} are")
}
