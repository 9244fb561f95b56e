//! The results of a backend: a fault ends the worker, and what is not complete is an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use embedgate_core::{BackendError, EmbeddingBatch, Outputs};

use super::{Lost, WorkerContext};

impl WorkerContext {
    /// The results of `n` sequences, complete.
    pub(super) fn results(
        &self,
        n: usize,
        outputs: Outputs,
        run: impl FnOnce() -> Result<EmbeddingBatch, BackendError>,
    ) -> Result<Result<EmbeddingBatch, BackendError>, Lost> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Err(error @ BackendError::Lost { .. })) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.unwrap_or_default();
                tracing::error!(model.name = %self.name, cause, "model {}: {error}: {cause}", self.name);
                Err(Lost)
            }
            Ok(result) => Ok(result.and_then(|results| complete(results, n, outputs))),
            // The panic itself is in the log already.
            Err(_) => {
                tracing::error!(model.name = %self.name, "the backend of model {} panicked", self.name);
                Err(Lost)
            }
        }
    }
}

/// Refuses results that are not of every sequence and everything asked for.
fn complete(
    results: EmbeddingBatch,
    n: usize,
    outputs: Outputs,
) -> Result<EmbeddingBatch, BackendError> {
    if results.is_complete(n, outputs) {
        Ok(results)
    } else {
        Err(BackendError::inference(
            "the backend broke its contract",
            "rows are missing",
        ))
    }
}
