//! Results that outlive the process: a redb file behind the cache in memory, written behind, read on a miss.
//!
//! What is written is committed within a second. A process that is killed loses at most that; what is read back carries a
//! checksum that binds it to its key, so a damaged file costs hits and never gives a wrong vector. A fault of the file or
//! the disk turns the tier off with a warning, and serving goes on; it is tried again after pauses that grow. So is a file
//! that another process has, which may be the one that this one replaces.

mod behind;
mod shared;
mod store;

use std::sync::Arc;

use embedgate_config::CacheConfig;
use embedgate_metrics::Metrics;
use embedgate_request::HashKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::{behind::write_behind, shared::Shared};
use super::{key::CacheKey, value::CachedValue};

/// Writes that may wait, and the memory of their values; more are left out, so that a slow disk costs no more.
const WAITING: usize = 16_384;
const WAITING_KIB: usize = 64 << 10;

/// The tier. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WarmFile {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
    memory: Arc<Semaphore>,
}

/// A wish to the task that writes behind.
enum Message {
    Write(CacheKey, Arc<CachedValue>, OwnedSemaphorePermit),
    Flush(oneshot::Sender<()>),
}

impl WarmFile {
    /// Opens the configured file, or makes it; none when none is configured. One that cannot be used now, which is logged, is
    /// tried again later. Must be called within a tokio runtime.
    #[must_use]
    pub(crate) fn open(config: &CacheConfig, metrics: &Metrics) -> Option<Self> {
        let (messages, incoming) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared::new(config, metrics)?);
        let shown = shared.path.display();
        match shared.turn_on() {
            Ok(()) => tracing::info!("the cache goes on from {shown}"),
            Err(error) => tracing::warn!(
                error = %error,
                "cache.file {shown} is not used: {error}; it is tried again"
            ),
        }
        tokio::spawn(write_behind(Arc::clone(&shared), incoming));
        Some(Self {
            shared,
            messages,
            memory: Arc::new(Semaphore::new(WAITING_KIB)),
        })
    }

    /// The secret that keys are made with.
    #[must_use]
    pub(crate) fn hash_key(&self) -> HashKey {
        **self.shared.hash_key.load()
    }

    /// True while it is in use.
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.shared.store().is_some()
    }

    /// The values under these keys, in their order.
    pub(crate) async fn read(&self, keys: Vec<CacheKey>) -> Vec<Option<CachedValue>> {
        let n = keys.len();
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || {
            let values = shared.guarded("read", |store| Ok(store.read(&keys)?))?;
            Some(
                values
                    .into_iter()
                    .map(|value| shared.fresh(value))
                    .collect(),
            )
        });
        let values = read.await.ok().flatten();
        values.unwrap_or_else(|| vec![None; n])
    }

    /// Writes a value, some time within the next second. Left out when the disk is too slow for what is computed.
    pub(crate) fn write(&self, key: CacheKey, value: Arc<CachedValue>) {
        if !self.is_on() {
            return;
        }
        let kib = u32::try_from(value.bytes().div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.memory).try_acquire_many_owned(kib);
        let sent = permit.is_ok_and(|permit| {
            let message = Message::Write(key, value, permit);
            self.messages.try_send(message).is_ok()
        });
        if !sent {
            tracing::debug!(
                "the cache's file is slower than what is computed: a value is left out"
            );
        }
    }

    /// Waits until everything written so far is in the file.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.messages.send(Message::Flush(done)).await.is_ok() {
            // An error means that the runtime is ending.
            drop(flushed.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use embedgate_config::CacheFileConfig;

    use super::{behind::FIRST_PAUSE, store::error::FileError, *};

    #[tokio::test(start_paused = true)]
    async fn a_file_that_failed_is_opened_again_and_put_aside_where_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.redb");
        let config = CacheConfig {
            file: CacheFileConfig {
                path: Some(path.clone()),
                ..CacheFileConfig::default()
            },
            ..CacheConfig::default()
        };
        let file = WarmFile::open(&config, &Metrics::new()).unwrap();
        let first_secret = file.hash_key();
        let fault = || FileError::Io(io::Error::other("a fault"));
        for (error, is_same) in [(fault(), true), (FileError::Damaged, false)] {
            assert!(file.is_on());
            assert_eq!(file.shared.guarded("read", |_| Err::<(), _>(error)), None);
            assert!(!file.is_on());
            while !file.is_on() {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
            assert_eq!(file.hash_key().bytes() == first_secret.bytes(), is_same);
        }
        assert!(folder.path().join("results.redb.damaged").exists());
    }
}
