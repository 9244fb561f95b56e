//! Results that outlive the process: a redb file behind the cache in memory, written behind, read on a miss.
//!
//! What is written is committed within a second. A process that is killed loses at most that; what is read back carries a
//! checksum that binds it to its key, so a damaged file costs hits and never gives a wrong vector. A fault of the file or
//! the disk turns the tier off with a warning, and serving goes on; it is tried again after pauses that grow. So is a file
//! that another process has, which may be the one that this one replaces.

mod store;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use embedgate_config::CacheConfig;
use embedgate_metrics::Metrics;
use embedgate_request::HashKey;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use self::store::{FileError, Store};
use super::{key::CacheKey, now_seconds, value::CachedValue};

/// Time for which writes are collected before they are committed together: half of the time whose writes may be lost.
const COLLECT: Duration = Duration::from_millis(500);
/// Writes that may wait, and the memory of their values; more are left out, so that a slow disk costs no more.
const WAITING: usize = 16_384;
const WAITING_KIB: usize = 64 << 10;
/// A file that is not in use is tried again after so long, then after twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The tier. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WarmFile {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
    memory: Arc<Semaphore>,
}

struct Shared {
    path: PathBuf,
    /// The open file's; before it was open, one that nobody knows.
    hash_key: ArcSwap<HashKey>,
    /// None while the file is not in use.
    store: RwLock<Option<Arc<Store>>>,
    /// Told when it is in use no more.
    turned_off: Notify,
    /// True where what is in the file cannot be read: it is put aside before it is opened again.
    is_damaged: AtomicBool,
    max_bytes: u64,
    ttl: Option<Duration>,
    precision: embedgate_config::ValuePrecision,
    metrics: Metrics,
}

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
        let shared = Arc::new(Shared {
            path: config.file.path.clone()?,
            hash_key: ArcSwap::from_pointee(HashKey::random()),
            store: RwLock::default(),
            turned_off: Notify::new(),
            is_damaged: AtomicBool::new(false),
            max_bytes: config.file.max_size.0,
            ttl: config.ttl.map(|ttl| ttl.0),
            precision: config.value_precision,
            metrics: metrics.clone(),
        });
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

impl Shared {
    fn store(&self) -> Option<Arc<Store>> {
        let store = self.store.read();
        store.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the file. Keys are made with its secret from now on.
    fn turn_on(&self) -> Result<(), FileError> {
        if self.is_damaged.swap(false, Ordering::Relaxed) {
            Store::put_aside(&self.path)?;
        }
        let store = Store::open(&self.path, self.max_bytes)?;
        self.hash_key.store(Arc::new(store.hash_key()));
        self.metrics.file_is_used(true);
        self.report_length(&store);
        let mut slot = self.store.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::new(store));
        Ok(())
    }

    /// Runs something on the file; a fault or a panic turns the tier off.
    fn guarded<T>(
        &self,
        what: &str,
        run: impl FnOnce(&Store) -> Result<T, FileError>,
    ) -> Option<T> {
        let store = self.store()?;
        let error = match catch_unwind(AssertUnwindSafe(|| run(&store))) {
            Ok(Ok(result)) => return Some(result),
            Ok(Err(error)) => error,
            Err(_) => FileError::Damaged,
        };
        let mut slot = self.store.write().unwrap_or_else(PoisonError::into_inner);
        // It may have been opened again meanwhile.
        if slot.as_ref().is_some_and(|now| Arc::ptr_eq(now, &store)) {
            *slot = None;
            drop(slot);
            let is_damaged = matches!(error, FileError::Damaged);
            self.is_damaged.store(is_damaged, Ordering::Relaxed);
            self.turned_off.notify_one();
            self.metrics.file_is_used(false);
            let path = self.path.display();
            tracing::warn!(
                error = %error,
                "cache.file {path} cannot be {what}: {error}; going on without it, and trying again later"
            );
        }
        None
    }

    /// A value that was read, unless it is too old or rounded otherwise.
    fn fresh(&self, value: Option<CachedValue>) -> Option<CachedValue> {
        let is_young = |value: &CachedValue| {
            let oldest = |ttl: Duration| now_seconds().saturating_sub(ttl.as_secs());
            self.ttl.is_none_or(|ttl| value.computed_at > oldest(ttl))
        };
        value.filter(|value| value.is_of(self.precision) && is_young(value))
    }

    fn report_length(&self, store: &Store) {
        // What cannot be asked now is asked again after the next commit.
        if let Ok(bytes) = store.bytes() {
            self.metrics.file_bytes(bytes);
        }
    }
}

/// Collects writes and commits them together, until every sender is gone; opens the file again while it is not in use.
async fn write_behind(shared: Arc<Shared>, mut incoming: mpsc::Receiver<Message>) {
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

#[cfg(test)]
mod tests {
    use std::io;

    use embedgate_config::CacheFileConfig;

    use super::*;

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
