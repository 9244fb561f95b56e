//! Modules without an encoder: `StaticEmbedding`, a vector for each token, whose mean is the text's vector, and `SparseStaticEmbedding`,
//! a weight for each token that a text has.
//!
//! Source: sentence-transformers 6.2, `static_embedding.py`, which reads the files of model2vec too, and
//! `sparse_static_embedding.py`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{FolderError, modules::invalid, read_json};
use crate::{EncoderConfig, impostor};

/// A vector or a weight for each token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticEmbedding {
    /// The folder of its files.
    pub folder: PathBuf,
    /// The tensors with the vector or the weight of each token.
    pub values: StaticValues,
    /// Tokens of the vocabulary.
    pub rows: usize,
    /// Only so many tokens of a text count, where `tokenizer.json` says it.
    pub max_tokens: Option<usize>,
}

/// The tensors of a [`StaticEmbedding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticValues {
    /// A vector a token.
    Vectors {
        /// The name of the vectors, shape `(tokens, width)`.
        name: String,
        /// The name of a factor for each token's vector, shape `(tokens)`.
        factors: Option<String>,
        /// Numbers of a vector.
        width: usize,
    },
    /// A weight a token.
    Weights {
        /// The name of the weights, shape `(tokens)`.
        name: String,
    },
}

impl StaticValues {
    /// The name of the tensor that each of these has.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vectors { name, .. } | Self::Weights { name } => name,
        }
    }
}

/// Texts of more tokens are cut. The reference has no limit; here memory is reserved for the longest text.
const MOST_TOKENS: usize = 1 << 17;
/// The format's own limit on the length of its header.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Tensor {
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct TokenizerFile {
    truncation: Option<Truncation>,
}

#[derive(Deserialize)]
struct Truncation {
    max_length: usize,
}

/// The file `config.json` of `SparseStaticEmbedding`.
#[derive(Default, Deserialize)]
struct SparseFile {
    path: Option<String>,
}

impl StaticEmbedding {
    /// Reads the sizes of the module in a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("model.safetensors");
        let tensors = header(&path).map_err(|problem| invalid(&path, problem))?;
        let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape.as_slice());
        let names = ["embedding.weight", "embeddings"];
        let Some((name, [rows, width])) = names.iter().find_map(|name| Some((name, shape(name)?)))
        else {
            let problem = "has no matrix embedding.weight, nor one called embeddings: it is no StaticEmbedding";
            return Err(invalid(&path, problem.into()));
        };
        if *rows == 0 || *width == 0 || *rows >= u32::MAX as usize {
            let problem = format!(
                "tensor \"{name}\" has shape [{rows}, {width}], expected a vector for each token"
            );
            return Err(invalid(&path, problem));
        }
        if shape("mapping").is_some() {
            let problem = "has the tensor mapping, tokens that share vectors, which is not supported: save the model with \
                           sentence-transformers, which gives each token its own";
            return Err(invalid(&path, problem.into()));
        }
        let tokenizer: Option<TokenizerFile> = read_json(&folder.join("tokenizer.json"))?;
        let truncation = tokenizer.and_then(|file| file.truncation);
        Ok(Self {
            folder: folder.to_owned(),
            values: StaticValues::Vectors {
                name: (*name).to_owned(),
                factors: shape("weights").map(|_| "weights".to_owned()),
                width: *width,
            },
            rows: *rows,
            max_tokens: truncation.map(|truncation| truncation.max_length),
        })
    }

    /// Reads the sizes of the module `SparseStaticEmbedding` in a folder.
    pub(super) fn read_sparse(folder: &Path) -> Result<Self, FolderError> {
        const NAME: &str = "weight";
        let config = folder.join("config.json");
        let file: SparseFile = read_json(&config)?.unwrap_or_default();
        if let Some(path) = file.path {
            let problem = format!(
                "path is \"{path}\", weights in a file of JSON, which is not supported: save the model with sentence-transformers, \
                 which writes them to model.safetensors"
            );
            return Err(invalid(&config, problem));
        }
        let path = folder.join("model.safetensors");
        let tensors = header(&path).map_err(|problem| invalid(&path, problem))?;
        let shape = tensors.get(NAME).map(|tensor| tensor.shape.as_slice());
        match shape {
            Some(&[rows]) if rows > 0 && rows < u32::MAX as usize => Ok(Self {
                folder: folder.to_owned(),
                values: StaticValues::Weights { name: NAME.into() },
                rows,
                max_tokens: None,
            }),
            Some(other) => Err(invalid(
                &path,
                format!("tensor \"{NAME}\" has shape {other:?}, expected a weight for each token"),
            )),
            None => Err(invalid(
                &path,
                format!("has no tensor \"{NAME}\": it is no SparseStaticEmbedding"),
            )),
        }
    }

    /// Returns true where a text has weights by token, and no vector.
    #[must_use]
    pub fn is_sparse(&self) -> bool {
        matches!(self.values, StaticValues::Weights { .. })
    }

    /// Numbers of a token.
    #[must_use]
    pub fn width(&self) -> usize {
        match self.values {
            StaticValues::Vectors { width, .. } => width,
            StaticValues::Weights { .. } => 1,
        }
    }

    /// The id that stands for a text without tokens, whose vector is zeros: one more than the vocabulary has.
    #[must_use]
    pub fn empty(&self) -> u32 {
        u32::try_from(self.rows).unwrap_or(u32::MAX)
    }

    /// The sizes, as those of an encoder without layers.
    pub(super) fn encoder(&self) -> EncoderConfig {
        let (model_type, reason) = match self.values {
            StaticValues::Vectors { .. } => (
                "static",
                "it is a StaticEmbedding, a vector for each token without an encoder, which type = \"cpu\" runs",
            ),
            StaticValues::Weights { .. } => (
                "static-sparse",
                "it is a SparseStaticEmbedding, a weight for each token without an encoder, which type = \"cpu\" runs",
            ),
        };
        let sizes = [self.rows + 1, self.width()];
        EncoderConfig::of_sizes(model_type, sizes, MOST_TOKENS, reason)
    }
}

/// The tensors of a safetensors file, by name.
fn header(path: &Path) -> Result<BTreeMap<String, Tensor>, String> {
    if let Some(problem) = impostor(path) {
        return Err(problem.into());
    }
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let mut length = [0; 8];
    let short = |_| "shorter than a safetensors header".to_owned();
    file.read_exact(&mut length).map_err(short)?;
    let (mut header, length) = (Vec::new(), u64::from_le_bytes(length));
    let of_file = file.metadata().map_err(|e| e.to_string())?.len();
    if length > of_file {
        return Err(format!(
            "header length {length} does not fit the file of {of_file} bytes"
        ));
    }
    let mut within = file.take(length.min(MAX_HEADER));
    within.read_to_end(&mut header).map_err(|e| e.to_string())?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&header)
        .map_err(|e| format!("header is not the expected JSON: {e}"))?;
    let tensors = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, value)| {
            let tensor = serde_json::from_value(value);
            let tensor = tensor.map_err(|e| format!("tensor \"{name}\" in the header: {e}"))?;
            Ok((name, tensor))
        })
        .collect()
}
