//! Runs short batches while a worker's long batch rests, for half of the time at most.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use embedgate_core::Backend;
use embedgate_request::Lane;
use tokio::sync::{
    mpsc::error::TrySendError,
    oneshot::{self, error::TryRecvError},
};

use super::{Lost, WorkerContext};
use crate::batch::{
    cost::BatchShape,
    entry::QueueEntry,
    work_request::{Batch, WorkRequest},
};

/// The batches beside a long one.
pub(super) struct SideBatches<'a> {
    context: &'a WorkerContext,
    /// The long batch.
    entries: &'a [QueueEntry],
    /// The lane whose short batches may run during the long batch.
    beside: Lane,
    started: Instant,
    /// The time that short batches took.
    rested: Duration,
    /// The next, once there is one.
    incoming: Option<oneshot::Receiver<Batch>>,
    /// The short batches that were run since the last report to the queue.
    done: Vec<(BatchShape, Duration)>,
    is_lost: bool,
}

/// The results that remain when a long batch has ended.
#[derive(Default)]
pub(super) struct Leftover {
    /// The time that short batches took.
    pub(super) rested: Duration,
    /// The short batches that the queue was not told of.
    pub(super) done: Vec<(BatchShape, Duration)>,
    /// The batch that came too late for a pause.
    pub(super) next: Option<Batch>,
}

impl<'a> SideBatches<'a> {
    pub(super) fn new(context: &'a WorkerContext, entries: &'a [QueueEntry], beside: Lane) -> Self {
        let mut side_batches = Self {
            context,
            entries,
            beside,
            started: Instant::now(),
            rested: Duration::ZERO,
            incoming: None,
            done: Vec::new(),
            is_lost: false,
        };
        side_batches.ask();
        side_batches
    }

    /// Runs what has come, and says whether the long batch goes on: not when nobody waits for it any more.
    pub(super) fn pause(&mut self, other: &mut dyn Backend) -> ControlFlow<()> {
        if self.entries.iter().all(|entry| entry.reply.is_closed()) {
            return ControlFlow::Break(());
        }
        match self.incoming.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(batch)) => {
                self.incoming = None;
                if self.run(other, batch).is_err() {
                    self.is_lost = true;
                    return ControlFlow::Break(());
                }
            }
            // The queue is closed.
            Some(Err(TryRecvError::Closed)) => self.incoming = None,
            Some(Err(TryRecvError::Empty)) => return ControlFlow::Continue(()),
            None => {}
        }
        self.ask();
        ControlFlow::Continue(())
    }

    /// To be called when the long batch has ended.
    pub(super) fn end(self) -> Result<Leftover, Lost> {
        if self.is_lost {
            return Err(Lost);
        }
        let next = self.incoming.and_then(|mut incoming| {
            // What comes from here on goes back to the queue.
            incoming.close();
            incoming.try_recv().ok()
        });
        Ok(Leftover {
            rested: self.rested,
            done: self.done,
            next,
        })
    }

    fn ask(&mut self) {
        if !may_ask(self.rested, self.started.elapsed()) {
            return;
        }
        let (batch, incoming) = oneshot::channel();
        let request = WorkRequest {
            batch,
            done: std::mem::take(&mut self.done),
            beside: Some(self.beside),
        };
        match self.context.work_requests.try_send(request) {
            Ok(()) => self.incoming = Some(incoming),
            Err(TrySendError::Full(request) | TrySendError::Closed(request)) => {
                self.done = request.done
            }
        }
    }

    fn run(&mut self, backend: &mut dyn Backend, batch: Batch) -> Result<(), Lost> {
        let started = Instant::now();
        if let Some(ran) = self.context.run(backend, batch)? {
            self.done.extend(ran.done);
            self.context.answer(backend, ran.replies)?;
        }
        self.rested += started.elapsed();
        Ok(())
    }
}

/// Others have half of the time at most: no more is asked for beyond that.
fn may_ask(rested: Duration, elapsed: Duration) -> bool {
    2 * rested <= elapsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_time_is_the_long_batch_s() {
        let seconds = Duration::from_secs;
        assert!(may_ask(Duration::ZERO, Duration::ZERO));
        assert!(may_ask(seconds(2), seconds(4)));
        assert!(!may_ask(seconds(3), seconds(5)));
    }
}
