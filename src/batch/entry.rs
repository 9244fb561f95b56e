//! One sequence on its way: what waits in the queue and is answered by a worker.

use std::{sync::Arc, time::Instant};

use embedgate_core::{Outputs, Row, TokenBatch};
use embedgate_request::{Error, Lane, Timings};
use tokio::sync::oneshot;

use super::{Admission, SequenceWork, Urgent};

/// One sequence on its way.
pub(super) struct QueueEntry {
    pub(super) ids: Vec<u32>,
    pub(super) type_ids: Vec<u32>,
    pub(super) outputs: Outputs,
    pub(super) urgent: Urgent,
    pub(super) since: Instant,
    pub(super) timings: Arc<Timings>,
    pub(super) reply: oneshot::Sender<Result<Row, Error>>,
    /// Held until the reply is sent.
    pub(super) admission: Admission,
}

impl QueueEntry {
    /// Makes an entry of work that is known by its tokens now, and waits from now on.
    pub(super) fn of(work: SequenceWork, reply: oneshot::Sender<Result<Row, Error>>) -> Self {
        let SequenceWork {
            ids,
            type_ids,
            outputs,
            urgent,
            mut admission,
            timings,
        } = work;
        admission.set_tokens(ids.len());
        Self {
            ids,
            type_ids,
            outputs,
            urgent,
            since: Instant::now(),
            timings,
            reply,
            admission,
        }
    }

    /// The lane that it is in now.
    pub(super) fn lane(&self) -> Lane {
        if self.urgent.is_set() {
            Lane::Query
        } else {
            self.admission.lane()
        }
    }

    /// Adds its tokens to a batch.
    pub(super) fn push_into(&self, batch: &mut TokenBatch) {
        if self.type_ids.is_empty() {
            batch.push(&self.ids);
        } else {
            batch.push_pair(&self.ids, &self.type_ids);
        }
    }

    /// Sends the answer; an error means that the caller left. The permit goes free before the caller hears of it.
    pub(super) fn answer(self, result: Result<Row, Error>) {
        let Self {
            reply, admission, ..
        } = self;
        drop(admission);
        drop(reply.send(result));
    }
}
