//! The thread that owns a backend: asks for a batch, runs it, and hands its results out while the next is being picked.

use std::io;

use embedgate_core::Backend;
use tokio::sync::oneshot;

use super::{
    work_request::Batch,
    worker_context::{Lost, PendingReplies, WorkerContext},
};

/// The way in which a worker's thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The queue was closed.
    Stopped,
    /// The backend panicked or said that it is lost.
    Lost,
}

/// A backend, and what it takes to work with it.
pub(crate) struct Worker {
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) context: WorkerContext,
}

impl Worker {
    /// Starts the thread; how it ends comes through the channel.
    pub(crate) fn start(self) -> io::Result<oneshot::Receiver<Ended>> {
        let (tx, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("worker-{}", self.context.name))
            .spawn(move || {
                if tx.send(self.work()).is_err() {
                    tracing::debug!("nobody waits for the end of a worker any more");
                }
            })?;
        Ok(ended)
    }

    /// Runs batches until the queue is closed. While one batch's results are handed out, the next is being picked.
    fn work(self) -> Ended {
        let Self {
            mut backend,
            context,
        } = self;
        let mut done = Vec::new();
        let mut replies: Option<PendingReplies> = None;
        let mut next: Option<Batch> = None;
        loop {
            let incoming = next
                .is_none()
                .then(|| context.ask(std::mem::take(&mut done)));
            if let Some(replies) = replies.take()
                && context.answer(&mut *backend, replies).is_err()
            {
                return Ended::Lost;
            }
            let batch = match incoming {
                Some(incoming) => incoming.and_then(|incoming| incoming.blocking_recv().ok()),
                None => next.take(),
            };
            let Some(batch) = batch else {
                return Ended::Stopped;
            };
            match context.run(&mut *backend, batch) {
                Ok(Some(ran)) => {
                    replies = Some(ran.replies);
                    done.extend(ran.done);
                    next = ran.next;
                }
                Ok(None) => {}
                Err(Lost) => return Ended::Lost,
            }
        }
    }
}
