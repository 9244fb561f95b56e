//! The task that writes behind: it collects values, commits them together, and opens the file again after a fault.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use super::{Message, WAITING, shared::Shared, store::Store};
use crate::cache::{key::CacheKey, value::CachedValue};

/// Time for which writes are collected before they are committed together: half of the time whose writes may be lost.
const COLLECT: Duration = Duration::from_millis(500);

/// A file that is not in use is tried again after so long, then after twice as long, and so on.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Collects writes and commits them together, until every sender is gone; opens the file again while it is not in use.
pub(super) async fn write_behind(shared: Arc<Shared>, mut incoming: mpsc::Receiver<Message>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let first = tokio::select! {
            first = incoming.recv() => first,
            () = shared.turned_off.notified() => continue,
            () = tokio::time::sleep(pause), if shared.store().is_none() => {
                pause = (pause * 2).min(LONGEST_PAUSE);
                turn_on_again(&shared, pause).await;
                continue;
            }
        };
        let Some(first) = first else {
            return;
        };
        let writes = Writes::collect(first, &mut incoming).await;
        if writes.commit(&shared).await {
            pause = FIRST_PAUSE;
        }
    }
}

/// Tries to open the file once more.
async fn turn_on_again(shared: &Arc<Shared>, pause: Duration) {
    let again = Arc::clone(shared);
    let opened = tokio::task::spawn_blocking(move || again.turn_on()).await;
    let path = shared.path.display();
    match opened {
        Ok(Ok(())) => tracing::info!("the cache goes on from {path} again"),
        Ok(Err(error)) => tracing::warn!(
            error = %error,
            "cache.file {path} is still not used: {error}; the next attempt is in {} s",
            pause.as_secs()
        ),
        // The runtime is ending.
        Err(_) => {}
    }
}

/// Values that are committed together.
#[derive(Default)]
struct Writes {
    values: Vec<(CacheKey, Arc<CachedValue>)>,
    permits: Vec<OwnedSemaphorePermit>,
    /// The callers that wait for it.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Writes {
    /// Takes what comes within a moment, or until somebody waits for it.
    async fn collect(first: Message, incoming: &mut mpsc::Receiver<Message>) -> Self {
        let mut writes = Self::default();
        let until = Instant::now() + COLLECT;
        let mut message = Some(first);
        loop {
            match message {
                Some(Message::Write(key, value, permit)) => {
                    writes.values.push((key, value));
                    writes.permits.push(permit);
                }
                Some(Message::Flush(done)) => {
                    writes.waiting.push(done);
                    return writes;
                }
                None => return writes,
            }
            if writes.values.len() >= WAITING {
                return writes;
            }
            match tokio::time::timeout_at(until, incoming.recv()).await {
                Ok(next) => message = next,
                Err(_) => return writes,
            }
        }
    }

    /// Writes it. Returns true where there was something, and it is in the file.
    async fn commit(self, shared: &Arc<Shared>) -> bool {
        let Self {
            values,
            permits,
            waiting,
        } = self;
        let behind = Arc::clone(shared);
        let write = tokio::task::spawn_blocking(move || {
            let write = |store: &Store| {
                store.write(&values)?;
                behind.report_length(store);
                Ok(())
            };
            let is_written = !values.is_empty() && behind.guarded("written", write).is_some();
            drop(permits);
            is_written
        });
        // An error means that the runtime is ending.
        let is_written = write.await.unwrap_or(false);
        if is_written {
            shared.metrics.file_commit();
        }
        for done in waiting {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for the cache's file any more");
            }
        }
        is_written
    }
}
