//! Results that outlive the process: a redb file behind the cache in memory, written behind, read on a miss.
//!
//! What is written is committed within a second. A process that is killed loses at most that; what is read back carries a
//! checksum that binds it to its key, so a damaged file costs hits and never gives a wrong vector. A fault of the file or
//! the disk turns the tier off with a warning, and serving goes on.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use embedgate_config::CacheConfig;
use embedgate_metrics::Metrics;
use embedgate_request::HashKey;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{key::CacheKey, now_seconds, value::CachedValue};

const VALUES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("values");
/// Keys by the order of their writing: the oldest go when the file is full.
const ORDER: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("order");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const HASH_KEY: &str = "hash_key";
const BYTES: &str = "bytes";

/// How long writes are collected before they are committed together: half of what may be lost.
const COLLECT: Duration = Duration::from_millis(500);
/// Writes that may wait, and the memory of their values; more are left out, so that a slow disk costs no more.
const WAITING: usize = 16_384;
const WAITING_KIB: usize = 64 << 10;
/// Memory for pages of the file; the system's own cache holds them too.
const PAGE_CACHE: usize = 16 << 20;
/// What an entry takes in the file beside its value: keys in two tables and the pages' own overhead, about.
const ENTRY_OVERHEAD: u64 = 150;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// Another process has it.
    #[error("another process uses it")]
    InUse,
    /// The file or its disk failed.
    #[error("{0}")]
    Storage(#[from] redb::Error),
    /// The folder or the file cannot be made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The library met what it did not expect.
    #[error("it is damaged")]
    Damaged,
}

/// The tier. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WarmFile {
    shared: Arc<Shared>,
    messages: mpsc::Sender<Message>,
    memory: Arc<Semaphore>,
}

struct Shared {
    path: PathBuf,
    hash_key: HashKey,
    /// None when the tier was turned off.
    database: RwLock<Option<Arc<Database>>>,
    max_bytes: u64,
    ttl: Option<Duration>,
    precision: embedgate_config::ValuePrecision,
}

enum Message {
    Write(CacheKey, Arc<CachedValue>, OwnedSemaphorePermit),
    Flush(oneshot::Sender<()>),
}

impl WarmFile {
    /// Opens the configured file, or makes it; none when none is configured, or when it cannot be used, which is logged.
    ///
    /// A file that is damaged is put aside, named `.damaged`, and begun anew. Must be called within a tokio runtime.
    #[must_use]
    pub(crate) fn open(config: &CacheConfig, metrics: &Metrics) -> Option<Self> {
        let path = config.file.path.as_deref()?;
        let shown = path.display();
        match open_or_replace(path) {
            Ok((database, hash_key)) => {
                let (messages, incoming) = mpsc::channel(WAITING);
                let shared = Arc::new(Shared {
                    path: path.to_owned(),
                    hash_key,
                    database: RwLock::new(Some(Arc::new(database))),
                    max_bytes: config.file.max_size.0,
                    ttl: config.ttl.map(|ttl| ttl.0),
                    precision: config.value_precision,
                });
                let writing = write_behind(Arc::clone(&shared), incoming, metrics.clone());
                tokio::spawn(writing);
                tracing::info!("the cache goes on from {shown}");
                Some(Self {
                    shared,
                    messages,
                    memory: Arc::new(Semaphore::new(WAITING_KIB)),
                })
            }
            Err(error) => {
                tracing::warn!(error = %error, "cache.file {shown} is not used: {error}");
                None
            }
        }
    }

    /// The key that the file's keys were made with.
    #[must_use]
    pub(crate) fn hash_key(&self) -> HashKey {
        self.shared.hash_key
    }

    /// Whether it still works.
    #[must_use]
    pub(crate) fn is_on(&self) -> bool {
        self.shared.database().is_some()
    }

    /// The values under these keys, in their order.
    pub(crate) async fn read(&self, keys: Vec<CacheKey>) -> Vec<Option<CachedValue>> {
        let n = keys.len();
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || {
            shared.guarded("read", |database| shared.read(database, &keys))
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
    fn database(&self) -> Option<Arc<Database>> {
        let database = self.database.read();
        database.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs something on the database; a fault or a panic turns the tier off.
    fn guarded<T>(
        &self,
        what: &str,
        run: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Option<T> {
        let database = self.database()?;
        let error: FileError = match catch_unwind(AssertUnwindSafe(|| run(&database))) {
            Ok(Ok(result)) => return Some(result),
            Ok(Err(error)) => error.into(),
            Err(_) => FileError::Damaged,
        };
        let database = self.database.write();
        let was_on = database.unwrap_or_else(PoisonError::into_inner).take();
        if was_on.is_some() {
            let path = self.path.display();
            tracing::warn!(
                error = %error,
                "cache.file {path} cannot be {what}: {error}; going on without it"
            );
        }
        None
    }

    fn read(
        &self,
        database: &Database,
        keys: &[CacheKey],
    ) -> Result<Vec<Option<CachedValue>>, redb::Error> {
        let transaction = database.begin_read()?;
        let table = transaction.open_table(VALUES)?;
        let oldest = self
            .ttl
            .map_or(0, |ttl| now_seconds().saturating_sub(ttl.as_secs()));
        let one = |key: &CacheKey| {
            let bytes = table.get(&key.0)?;
            let value = bytes.and_then(|bytes| CachedValue::from_bytes(key, bytes.value()));
            Ok(value.filter(|value| {
                value.is_of(self.precision) && (value.computed_at > oldest || self.ttl.is_none())
            }))
        };
        keys.iter().map(one).collect()
    }

    /// Commits values; the oldest make room.
    fn write(
        &self,
        database: &Database,
        values: &[(CacheKey, Arc<CachedValue>)],
    ) -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        // After a crash the file opens at once, whatever its size.
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(VALUES)?;
            let mut order = transaction.open_table(ORDER)?;
            let mut meta = transaction.open_table(META)?;
            let mut bytes = number(meta.get(BYTES)?.map(|n| n.value().to_vec()));
            let mut next = order.last()?.map_or(0, |(at, _)| at.value() + 1);
            for (key, value) in values {
                let value = value.to_bytes(key);
                let replaced = table.insert(&key.0, value.as_slice())?;
                let before = replaced.map(|old| old.value().len() as u64);
                bytes += value.len() as u64;
                match before {
                    // It stands in the order already.
                    Some(before) => bytes = bytes.saturating_sub(before),
                    None => {
                        bytes += ENTRY_OVERHEAD;
                        order.insert(next, &key.0)?;
                        next += 1;
                    }
                }
            }
            while bytes > self.max_bytes {
                let Some((_, key)) = order.pop_first()? else {
                    break;
                };
                let removed = table.remove(key.value())?;
                let freed = removed.map_or(0, |value| value.value().len() as u64);
                bytes = bytes.saturating_sub(freed + ENTRY_OVERHEAD);
            }
            meta.insert(BYTES, bytes.to_le_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Collects writes and commits them together, until every sender is gone.
async fn write_behind(
    shared: Arc<Shared>,
    mut incoming: mpsc::Receiver<Message>,
    metrics: Metrics,
) {
    let mut open = true;
    while open {
        let Some(first) = incoming.recv().await else {
            return;
        };
        let (mut values, mut permits, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let until = Instant::now() + COLLECT;
        let mut message = Some(first);
        loop {
            match message {
                Some(Message::Write(key, value, permit)) => {
                    values.push((key, value));
                    permits.push(permit);
                }
                Some(Message::Flush(done)) => {
                    waiting.push(done);
                    break;
                }
                None => {
                    open = false;
                    break;
                }
            }
            if values.len() >= WAITING {
                break;
            }
            match tokio::time::timeout_at(until, incoming.recv()).await {
                Ok(next) => message = next,
                Err(_) => break,
            }
        }
        let shared = Arc::clone(&shared);
        let write = tokio::task::spawn_blocking(move || {
            let is_written = !values.is_empty()
                && shared
                    .guarded("written", |database| shared.write(database, &values))
                    .is_some();
            drop(permits);
            is_written
        });
        // An error means that the runtime is ending.
        if write.await.unwrap_or(false) {
            metrics.file_commit();
        }
        for done in waiting {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for the cache's file any more");
            }
        }
    }
}

fn number(bytes: Option<Vec<u8>>) -> u64 {
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}

fn open_or_replace(path: &Path) -> Result<(Database, HashKey), FileError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let opened = open(path);
    if !matches!(opened, Err(FileError::Damaged)) {
        return opened;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    std::fs::rename(path, &aside)?;
    let aside = Path::new(&aside).display();
    tracing::warn!("cache.file is damaged: it is now {aside}, and begun anew");
    open(path)
}

fn open(path: &Path) -> Result<(Database, HashKey), FileError> {
    let opening = || -> Result<(Database, HashKey), FileError> {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE);
        // Vectors tell much of texts: nobody else may read them.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        drop(options.mode(0o600).open(path)?);
        let database = builder.create(path).map_err(database_error)?;
        let hash_key = prepare(&database).map_err(storage_error)?;
        Ok((database, hash_key))
    };
    // Where a file is damaged, the library may panic.
    catch_unwind(AssertUnwindSafe(opening)).unwrap_or(Err(FileError::Damaged))
}

/// Makes the tables where they are missing, and the key that keys are made with.
fn prepare(database: &Database) -> Result<HashKey, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let hash_key = {
        transaction.open_table(VALUES)?;
        transaction.open_table(ORDER)?;
        let mut meta = transaction.open_table(META)?;
        let known: Option<[u8; 32]> = meta.get(HASH_KEY)?.and_then(|k| k.value().try_into().ok());
        if let Some(known) = known {
            HashKey::from(known)
        } else {
            let new = HashKey::random();
            meta.insert(HASH_KEY, new.bytes().as_slice())?;
            new
        }
    };
    transaction.commit()?;
    Ok(hash_key)
}

fn database_error(error: DatabaseError) -> FileError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            FileError::InUse
        }
        DatabaseError::UpgradeRequired(_) => FileError::Damaged,
        DatabaseError::Storage(error) => storage_error(error.into()),
        other => FileError::Storage(other.into()),
    }
}

fn storage_error(error: redb::Error) -> FileError {
    match error {
        redb::Error::Corrupted(_) => FileError::Damaged,
        // Not a file of redb at all.
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => FileError::Damaged,
        other => FileError::Storage(other),
    }
}
