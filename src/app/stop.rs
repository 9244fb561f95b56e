//! The end: the queues end, the workers are joined, and the cache is written to its file.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};

use crate::{cache::EmbeddingCache, http::Gateway, shutdown::Stage};

/// Longest time that the end of the process waits for the cache's file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends the models' queues and joins their workers. A batch in flight is waited for, but not for ever.
pub(super) async fn stop(gateway: Arc<Gateway>, timeout: Duration) -> anyhow::Result<()> {
    let shutdown = gateway.shutdown.clone();
    // Every connection has ended, so nobody else holds the models.
    let Some(embedder) = gateway.models.take().and_then(Arc::into_inner) else {
        tracing::warn!("something still uses the models: they end with the process");
        return Ok(());
    };
    let cache = embedder.cache().clone();
    // Now, whatever becomes of the batches in flight; and again, with what they gave.
    flush(&cache).await;
    let stopping = tokio::task::spawn_blocking(move || embedder.stop());
    let stopping = async {
        let stopped = stopping.await;
        flush(&cache).await;
        stopped
    };
    tokio::select! {
        stopped = stopping => stopped.context("the models did not stop cleanly"),
        () = tokio::time::sleep(timeout) => bail!("stopped with a batch still running"),
        () = shutdown.reached(Stage::Forced) => bail!("stopped with a batch still running"),
    }
}

/// Writes what the cache's file does not have yet; a disk that stands still does not keep the process.
pub(super) async fn flush(cache: &EmbeddingCache) {
    if tokio::time::timeout(FLUSH_TIMEOUT, cache.flush())
        .await
        .is_err()
    {
        tracing::warn!("the cache's file takes too long: its last results are not in it");
    }
}
