//! The reasons why a model cannot be loaded.

use std::io;

use embedgate_core::{BackendError, FolderError};
use thiserror::Error;

use super::super::tokenizer::TokenizerError;

/// The reason why a model cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// A file of the folder is missing, broken or not supported.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The backend cannot run the model.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The configuration asks for what the model does not have.
    #[error("{0}")]
    Setting(String),
    /// The first batch failed.
    #[error("the warm-up batch failed: {0}")]
    WarmUp(#[source] BackendError),
    /// The first batch gave no numbers.
    #[error(
        "the warm-up batch gave NaN or infinite values: the weights are damaged, or this precision cannot hold them"
    )]
    NoNumbers,
    /// One more copy of the model could not be loaded.
    #[error("a replica: {0}")]
    Replica(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system gave no thread, or the folder changed while it was read.
    #[error("{what}: {source}")]
    System {
        /// The action that failed.
        what: &'static str,
        /// The cause of the failure.
        #[source]
        source: io::Error,
    },
}

/// Makes the error of what the system refused.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> LoadError {
    move |source| LoadError::System { what, source }
}
