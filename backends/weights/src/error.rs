//! The errors of reading weights.

use std::path::{Path, PathBuf};

use embedgate_core::other_format;
use thiserror::Error;

/// The reasons why weights cannot be read.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// None of the known files is in the folder.
    #[error(
        "{} has no weights: expected model.safetensors or pytorch_model.bin, whole or in parts with their index{}",
        .0.display(),
        instead(.0)
    )]
    NoWeights(PathBuf),
    /// A file is damaged, or not what its name says.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem with the file.
        problem: String,
    },
    /// The architecture needs a tensor that the files lack.
    #[error("{}: tensor \"{name}\" is missing", path.display())]
    MissingTensor {
        /// The model folder.
        path: PathBuf,
        /// The tensor's name, without the model's prefix.
        name: String,
    },
    /// A tensor is in a number format that is not read.
    #[error(
        "{}: tensor \"{name}\" is in {format}, supported are F32, F16, BF16 and F64: take the model in one of these, or save it so",
        path.display()
    )]
    OtherFormat {
        /// The model folder.
        path: PathBuf,
        /// The tensor's name, without the model's prefix.
        name: String,
        /// The format, as safetensors names it, such as `F8_E4M3`.
        format: String,
    },
    /// A tensor's shape is not the one that `config.json` implies.
    #[error("{}: tensor \"{name}\" has shape {found:?}, config.json implies {expected:?}", path.display())]
    WrongShape {
        /// The model folder.
        path: PathBuf,
        /// The tensor's name, without the model's prefix.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A layer has a tensor that nobody reads: the model is more than its configuration says.
    #[error(
        "{}: tensor \"{name}\" belongs to a layer, and nothing in config.json says what is done with it: the model is of another kind \
         than its model_type",
        path.display()
    )]
    Unread {
        /// The model folder.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
    },
    /// A model with such a number gives no number for any text.
    #[error("{}: tensor \"{name}\" holds {value} at place {place}: its weights are damaged, or were saved wrong", path.display())]
    NotFinite {
        /// The model folder.
        path: PathBuf,
        /// The tensor's name, without the model's prefix.
        name: String,
        /// NaN or an infinity.
        value: f32,
        /// The place of the number in row-major order, from 0.
        place: usize,
    },
}

/// Names the format that the folder holds instead, where it is known.
fn instead(folder: &Path) -> String {
    other_format(folder).map_or_else(String::new, |problem| format!("; {problem}"))
}

impl WeightsError {
    /// A damaged file, with the problem.
    pub(crate) fn damaged(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// A damaged file, with the problem of one of its tensors.
    pub(crate) fn tensor(path: &Path, name: &str, problem: impl std::fmt::Display) -> Self {
        Self::damaged(path, format!("tensor \"{name}\": {problem}"))
    }
}
