//! The way to ask for a reload, and to hear of its result.

use std::{sync::Arc, time::Duration};

use embedgate_request::Error;
use tokio::sync::{mpsc, oneshot};

use super::report::Report;

/// So many may ask for a reload at once.
const MOST_ASKED: usize = 64;

/// Waits for the result of a reload.
pub(super) type Reply = oneshot::Sender<Arc<Report>>;

/// Asks for reloads.
#[derive(Clone, Debug)]
pub(crate) struct Reloads(mpsc::Sender<Reply>);

impl Reloads {
    /// Makes the handle that asks for reloads, and the channel where the requests arrive.
    #[must_use]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Reply>) {
        let (asked, asking) = mpsc::channel(MOST_ASKED);
        (Self(asked), asking)
    }

    /// Reads the configuration again, and waits until it is in force.
    ///
    /// # Errors
    /// `Unavailable` at the end of the process.
    pub(crate) async fn reload(&self) -> Result<Arc<Report>, Error> {
        let over = || {
            Error::unavailable("embedgate is shutting down", Duration::from_secs(1))
                .with_code("shutting_down")
        };
        let (reply, report) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| over())?;
        report.await.map_err(|_| over())
    }
}

/// Tells those who asked what a reload did.
pub(super) fn answer(replies: impl IntoIterator<Item = Reply>, report: Report) {
    let report = Arc::new(report);
    for reply in replies {
        // An error means that who asked has left.
        drop(reply.send(Arc::clone(&report)));
    }
}
