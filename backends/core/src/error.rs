//! Errors of a backend.

use thiserror::Error;

use crate::Outputs;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The reasons why a model could not be loaded, or a batch could not be run.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The batch breaks the contract; running it again cannot help.
    #[error("invalid batch: {0}")]
    InvalidBatch(String),
    /// The model has no such head.
    #[error("the model gives {available}, not {asked}")]
    UnsupportedOutput {
        /// The outputs that were asked for.
        asked: Outputs,
        /// The outputs that the model gives.
        available: Outputs,
    },
    /// The model's files or the settings do not make a model that this backend can run.
    #[error("{0}")]
    Load(String),
    /// A library needed at run time is missing or too old.
    #[error("{0}")]
    MissingLibrary(String),
    /// The backend cannot be used any more, such as after a fault of its device: it has to be loaded again.
    #[error("the backend is lost: {what}")]
    Lost {
        /// The operation that failed.
        what: &'static str,
        /// The library's own error.
        #[source]
        source: Source,
    },
    /// The caller stopped the batch in a pause.
    #[error("the batch was stopped")]
    Stopped,
    /// The library underneath failed.
    #[error("{what}")]
    Inference {
        /// The operation that failed.
        what: &'static str,
        /// The library's own error.
        #[source]
        source: Source,
    },
}

impl BackendError {
    /// Wraps an error of the library underneath.
    pub fn inference(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Inference {
            what,
            source: source.into(),
        }
    }
}
