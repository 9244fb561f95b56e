//! The file as long as it is in use: opened, turned off by a fault, and opened again.

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
use embedgate_config::{CacheConfig, ValuePrecision};
use embedgate_metrics::Metrics;
use embedgate_request::HashKey;
use tokio::sync::Notify;

use super::store::{Store, error::FileError};
use crate::cache::{now_seconds, value::CachedValue};

/// The file, for those who read and for the task that writes.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    /// The open file's; before it was open, one that nobody knows.
    pub(super) hash_key: ArcSwap<HashKey>,
    /// None while the file is not in use.
    store: RwLock<Option<Arc<Store>>>,
    /// Told when it is in use no more.
    pub(super) turned_off: Notify,
    /// True where what is in the file cannot be read: it is put aside before it is opened again.
    is_damaged: AtomicBool,
    max_bytes: u64,
    ttl: Option<Duration>,
    precision: ValuePrecision,
    pub(super) metrics: Metrics,
}

impl Shared {
    /// A tier that is not in use yet; none when no file is configured.
    pub(super) fn new(config: &CacheConfig, metrics: &Metrics) -> Option<Self> {
        Some(Self {
            path: config.file.path.clone()?,
            hash_key: ArcSwap::from_pointee(HashKey::random()),
            store: RwLock::default(),
            turned_off: Notify::new(),
            is_damaged: AtomicBool::new(false),
            max_bytes: config.file.max_size.0,
            ttl: config.ttl.map(|ttl| ttl.0),
            precision: config.value_precision,
            metrics: metrics.clone(),
        })
    }

    /// The open file; none while it is not in use.
    pub(super) fn store(&self) -> Option<Arc<Store>> {
        let store = self.store.read();
        store.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the file. Keys are made with its secret from now on.
    pub(super) fn turn_on(&self) -> Result<(), FileError> {
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
    pub(super) fn guarded<T>(
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
    pub(super) fn fresh(&self, value: Option<CachedValue>) -> Option<CachedValue> {
        let is_young = |value: &CachedValue| {
            let oldest = |ttl: Duration| now_seconds().saturating_sub(ttl.as_secs());
            self.ttl.is_none_or(|ttl| value.computed_at > oldest(ttl))
        };
        value.filter(|value| value.is_of(self.precision) && is_young(value))
    }

    /// Tells the metrics how long the file is.
    pub(super) fn report_length(&self, store: &Store) {
        // What cannot be asked now is asked again after the next commit.
        if let Ok(bytes) = store.bytes() {
            self.metrics.file_bytes(bytes);
        }
    }
}
