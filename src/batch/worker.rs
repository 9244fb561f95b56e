//! The thread that owns a backend: asks for a batch, runs it, and hands its results out while the next is being picked.

use std::io;

use embedgate_core::Backend;
use tokio::sync::oneshot;

use super::{
    desk::{Desk, Lost, Scatter},
    turn::Batch,
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
    pub(crate) desk: Desk,
}

impl Worker {
    /// Starts the thread; how it ends comes through the channel.
    pub(crate) fn start(self) -> io::Result<oneshot::Receiver<Ended>> {
        let (tx, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("worker-{}", self.desk.name))
            .spawn(move || {
                if tx.send(self.work()).is_err() {
                    tracing::debug!("nobody waits for the end of a worker any more");
                }
            })?;
        Ok(ended)
    }

    /// Runs batches until the queue is closed. While one batch's results are handed out, the next is being picked.
    fn work(self) -> Ended {
        let Self { mut backend, desk } = self;
        let mut done = Vec::new();
        let mut scatter: Option<Scatter> = None;
        let mut next: Option<Batch> = None;
        loop {
            let incoming = next.is_none().then(|| desk.ask(std::mem::take(&mut done)));
            if let Some(scatter) = scatter.take()
                && desk.answer(&mut *backend, scatter).is_err()
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
            match desk.run(&mut *backend, batch) {
                Ok(Some(ran)) => {
                    scatter = Some(ran.scatter);
                    done.extend(ran.done);
                    next = ran.next;
                }
                Ok(None) => {}
                Err(Lost) => return Ended::Lost,
            }
        }
    }
}
