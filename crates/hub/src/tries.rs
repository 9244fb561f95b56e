//! Tries of a request: how many there are, and how long the pauses between them last.

use std::time::Duration;

use crate::error::HubError;

/// Tries for a file without a byte of progress.
pub(crate) const TRIES: usize = 8;
/// The longest pause between tries; a hub that asks for more is given it, up to [`MOST_ASKED`].
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The longest time that a hub is left alone where it asks for it.
pub(crate) const MOST_ASKED: Duration = Duration::from_secs(300);

/// A failed try, and how long the server wants to be left alone.
pub(crate) struct Failure {
    pub(crate) error: HubError,
    pub(crate) wait: Option<Duration>,
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self { error, wait: None }
    }
}

/// The tries that are left: a budget without progress, with pauses that grow.
pub(crate) struct Tries {
    all: usize,
    left: usize,
    pause: Duration,
    first: Duration,
}

impl Tries {
    /// So many tries, and the first pause.
    pub(crate) fn new(all: usize, first: Duration) -> Self {
        Self {
            all,
            left: all,
            pause: first,
            first,
        }
    }

    /// Forgets failures, since something came.
    pub(crate) fn progressed(&mut self) {
        *self = Self::new(self.all, self.first);
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure, where no try may help, or none is left.
    pub(crate) async fn failed(&mut self, failure: Failure) -> Result<(), HubError> {
        let Failure { error, wait } = failure;
        self.left -= 1;
        if !error.may_pass() || self.left == 0 {
            return Err(error);
        }
        let pause = match wait {
            Some(wait) => wait.min(MOST_ASKED).max(self.pause),
            None => self.pause,
        };
        if pause >= Duration::from_secs(5) {
            tracing::warn!("{error}: trying again in {} s", pause.as_secs());
        } else {
            tracing::debug!("{error}: trying again");
        }
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
