//! What can go wrong in a backend.

use thiserror::Error;

use crate::Outputs;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a model could not be loaded, or a batch not be run.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The batch breaks the contract; running it again cannot help.
    #[error("invalid batch: {0}")]
    InvalidBatch(String),
    /// The model has no such head.
    #[error("the model gives {available}, not {asked}")]
    UnsupportedOutput {
        /// What was asked for.
        asked: Outputs,
        /// What the model has.
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
        /// What was being done.
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
        /// What was being done.
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
