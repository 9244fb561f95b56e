//! The messages between the dispatcher and the workers: a worker asks for work, and a batch answers each request.

use std::time::Duration;

use embedgate_request::Lane;
use tokio::sync::oneshot;

use super::{cost::BatchShape, entry::QueueEntry};

/// The request of a worker that is free, or will be in a moment, or whose long batch can rest for a short one.
pub(crate) struct WorkRequest {
    /// Takes the next batch, which may be empty. Closed when the worker does not wait for it any more.
    pub(crate) batch: oneshot::Sender<Batch>,
    /// The shape and the time of each batch that was run since the request before.
    pub(crate) done: Vec<(BatchShape, Duration)>,
    /// The lane whose short batches may run during the worker's long batch, which can rest.
    pub(crate) beside: Option<Lane>,
}

/// The entries that a worker runs together.
pub(crate) struct Batch {
    /// The entries, of one lane.
    pub(crate) entries: Vec<QueueEntry>,
    /// Set where it takes so long that others go beside it: queries, or bulk too.
    pub(crate) beside: Option<Lane>,
}
