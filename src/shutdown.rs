//! The stages of the process's end: running, draining after the first signal, forced after the second.

use tokio::sync::watch;

/// The stage of the process's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Serving.
    Running,
    /// Requests in flight finish; new ones are refused.
    Draining,
    /// The end, whatever is in flight.
    Forced,
}

/// Tells everybody what stage it is. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown(watch::Receiver<Stage>);

impl Shutdown {
    /// Makes a handle that moves the stage, and what follows it.
    #[must_use]
    pub(crate) fn manual() -> (watch::Sender<Stage>, Self) {
        let (tx, rx) = watch::channel(Stage::Running);
        (tx, Self(rx))
    }

    /// Follows SIGTERM and SIGINT: the first drains, the second forces.
    ///
    /// # Errors
    /// When the system gives no signal handler.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (tx, shutdown) = Self::manual();
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::spawn(async move {
            for stage in [Stage::Draining, Stage::Forced] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "received {name}");
                tx.send_replace(stage);
            }
            // Kept, so that the last stage stays visible.
            tx.closed().await;
        });
        Ok(shutdown)
    }

    /// The stage now.
    #[must_use]
    pub(crate) fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until the stage is reached or passed.
    pub(crate) async fn reached(&self, stage: Stage) {
        let mut stages = self.0.clone();
        // An error means that nobody can move the stage any more: then it is never reached.
        if stages.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
