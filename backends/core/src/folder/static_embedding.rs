//! The module `StaticEmbedding`: a vector for each token, and no encoder. A text's vector is the mean of its tokens' vectors.
//!
//! Source: sentence-transformers 6.2, `modules/static_embedding.py`, which reads the files of model2vec too.

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

/// A vector for each token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticEmbedding {
    /// The folder of its files.
    pub folder: PathBuf,
    /// The name of the vectors' tensor, shape `(tokens, width)`.
    pub vectors: String,
    /// The name of a factor for each token's vector, shape `(tokens)`.
    pub factors: Option<String>,
    /// Tokens of the vocabulary.
    pub rows: usize,
    /// Numbers of a vector.
    pub width: usize,
    /// Only so many tokens of a text count, where `tokenizer.json` says it.
    pub max_tokens: Option<usize>,
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
            vectors: (*name).to_owned(),
            factors: shape("weights").map(|_| "weights".to_owned()),
            rows: *rows,
            width: *width,
            max_tokens: truncation.map(|truncation| truncation.max_length),
        })
    }

    /// The id that stands for a text without tokens, whose vector is zeros: one more than the vocabulary has.
    #[must_use]
    pub fn empty(&self) -> u32 {
        u32::try_from(self.rows).unwrap_or(u32::MAX)
    }

    /// The sizes, as those of an encoder without layers.
    pub(super) fn encoder(&self) -> EncoderConfig {
        let reason = "it is a StaticEmbedding, a vector for each token without an encoder, which type = \"cpu\" runs";
        EncoderConfig::of_sizes("static", [self.rows + 1, self.width], MOST_TOKENS, reason)
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
