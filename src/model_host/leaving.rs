//! Models that are not served any more and still answer their last requests.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::ModelHost;
use crate::model::Model;

/// A model that is asked to leave still answers the requests that it has: that long others wait for its memory.
pub(super) const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

impl ModelHost {
    /// Gives the memory of a model back to the system, as soon as nobody uses it any more.
    pub(super) fn free_later(&self, model: Arc<Model>) {
        let ended = model.batcher().ended();
        drop(model);
        let leaving = tokio::spawn(async move {
            ended.await;
            trim().await;
        });
        let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|leaving| !leaving.is_finished());
        all.push(leaving);
    }

    /// Waits for the models that are not served any more, but not for ever.
    pub(super) async fn wait_for_leaving(&self) {
        let leaving = {
            let mut all = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all)
        };
        let all = futures_util::future::join_all(leaving);
        if tokio::time::timeout(LEAVE_TIMEOUT, all).await.is_err() {
            tracing::warn!(
                "a model that is not served any more still answers requests after {} s: its memory is not free yet",
                LEAVE_TIMEOUT.as_secs()
            );
        }
    }
}

async fn trim() {
    // It takes the allocator's locks for milliseconds. An error means that the process ends.
    drop(tokio::task::spawn_blocking(embedgate_core::allocator::trim).await);
}
