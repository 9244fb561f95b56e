//! Gives one sequence to the queue, and waits for its row.

use embedgate_core::Row;
use embedgate_request::Error;
use tokio::sync::{Notify, oneshot};

use super::{
    Batcher, QueueEntry, SequenceWork,
    refused::{down, lost_while_running},
};

impl Batcher {
    /// Runs one sequence. Dropping the future drops the sequence, unless it runs already.
    ///
    /// # Errors
    /// `Internal` when the backend fails on it; `Unavailable` when the backend is lost.
    pub(crate) async fn embed(&self, work: SequenceWork) -> Result<Row, Error> {
        // Dropped after the receiver: by then the entry counts as left.
        let mut leaving = TellIfLeft(Some(&self.left));
        let (reply, answer) = oneshot::channel();
        let (waiting, was_urgent) = (work.urgent.clone(), work.urgent.is_set());
        let entry = QueueEntry::of(work, reply);
        let lost = || down(&self.name, &self.health);
        self.entries.send(entry).await.map_err(|_| lost())?;
        let becomes_urgent = async {
            waiting.until_set().await;
            self.left.notify_one();
        };
        let mut answer = answer;
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The worker may be resting in a long batch that this can go beside now.
            () = becomes_urgent, if !was_urgent => answer.await,
        };
        leaving.0 = None;
        answer.map_err(|_| lost_while_running(&self.name, &self.health))?
    }
}

/// Tells the queue that a caller left, unless the answer came.
struct TellIfLeft<'a>(Option<&'a Notify>);

impl Drop for TellIfLeft<'_> {
    fn drop(&mut self) {
        if let Some(left) = self.0 {
            left.notify_one();
        }
    }
}
