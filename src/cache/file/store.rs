//! The tables of the cache's file, and how much room they take.
//!
//! redb doubles its file whenever it finds no room, from 4 GiB on it adds that much, and it gives each value of more than half a page
//! pages of its own. So what is kept is counted in pages, and kept so far below the file's length that it never grows beyond its limit.
//!
//! Pages that a commit frees are free only when no read that began before it goes on: reads are short.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use embedgate_request::HashKey;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};

use crate::cache::{key::CacheKey, value::CachedValue};

const VALUES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("values");
/// Keys by the order of their writing: the oldest go when the file is full.
const ORDER: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("order");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const HASH_KEY: &str = "hash_key";
/// The sum of what all entries take, as [`room_of`] counts.
const ROOM: &str = "room";

/// Memory for pages of the file; the system's own cache holds them too.
const PAGE_CACHE: usize = 16 << 20;
const PAGE: u64 = 4096;
const MOST_COPIED: u64 = 16 << 20;
/// The file grows by so much once it is as long.
const REGION: u64 = 4 << 30;
const KEYS_A_READ: usize = 64;
/// Entries that go in one commit, where many must: of a file that was longer.
const REMOVED_AT_ONCE: usize = 1000;
/// Bytes of an entry without its value: keys in two tables, and its part of the pages above them.
const ENTRY_OVERHEAD: u64 = 250;

/// The reason why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// Another process has it.
    #[error("another process uses it")]
    InUse,
    /// The file or its disk failed.
    #[error("{0}")]
    Storage(#[source] redb::Error),
    /// The folder or the file cannot be made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The library met what it did not expect.
    #[error("it is damaged")]
    Damaged,
}

impl From<redb::Error> for FileError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(_) => Self::Damaged,
            // Not a file of redb at all.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Damaged,
            other => Self::Storage(other),
        }
    }
}

/// The open file.
pub(super) struct Store {
    database: Database,
    path: PathBuf,
    hash_key: HashKey,
    max_bytes: u64,
}

impl Store {
    /// Opens the file, or makes it. One that is damaged is put aside, named `.damaged`, and begun anew.
    ///
    /// # Errors
    /// When another process has it, or the disk fails.
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, FileError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let opened = open(path, max_bytes);
        if !matches!(opened, Err(FileError::Damaged)) {
            return opened;
        }
        Self::put_aside(path)?;
        open(path, max_bytes)
    }

    /// Renames a file that is damaged.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(super) fn put_aside(path: &Path) -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        std::fs::rename(path, &aside)?;
        let aside = Path::new(&aside).display();
        tracing::warn!("cache.file is damaged: it is now {aside}, and begun anew");
        Ok(())
    }

    /// The secret that the file's keys were made with.
    pub(super) fn hash_key(&self) -> HashKey {
        self.hash_key
    }

    /// Length of the file.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        Ok(self.path.metadata()?.len())
    }

    /// The values under these keys, in their order.
    pub(super) fn read(&self, keys: &[CacheKey]) -> Result<Vec<Option<CachedValue>>, redb::Error> {
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_A_READ) {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(VALUES)?;
            for key in keys {
                let bytes = table.get(&key.0)?;
                values.push(bytes.and_then(|bytes| CachedValue::from_bytes(key, bytes.value())));
            }
        }
        Ok(values)
    }

    /// Commits values, in parts that leave room for both states of what they change; the oldest values make room.
    pub(super) fn write(&self, values: &[(CacheKey, Arc<CachedValue>)]) -> Result<(), FileError> {
        let most = self.most_copied();
        let (mut part, mut copied) = (Vec::new(), 0);
        for (key, value) in values {
            let value = value.to_bytes(key);
            // Keys are spread: each that comes, and each that goes, has a page copied.
            let more = room_of(value.len()).max(PAGE) + PAGE;
            // What would take so much of the file is not worth the others.
            if more > self.max_bytes / 16 {
                tracing::debug!(
                    "a result of {} bytes is too large for cache.file",
                    value.len()
                );
                continue;
            }
            if copied + more > most && !part.is_empty() {
                self.commit(&part)?;
                part.clear();
                copied = 0;
            }
            copied += more;
            part.push((*key, value));
        }
        self.commit(&part)
    }

    /// The bytes of the file that a commit may copy.
    fn most_copied(&self) -> u64 {
        (self.max_bytes / 16).min(MOST_COPIED)
    }

    /// The room that entries may take in a file of this length, which doubles where it may. What two commits copy is free, for the
    /// first one's old pages come back only after the second, and a sixteenth is for what is not counted.
    fn limit(&self, mut file_bytes: u64) -> u64 {
        let next = |bytes: u64| match bytes {
            ..REGION => bytes * 2,
            _ => (bytes / REGION + 1) * REGION,
        };
        while next(file_bytes) <= self.max_bytes {
            file_bytes = next(file_bytes);
        }
        let longest = file_bytes.min(self.max_bytes);
        (longest - longest / 16).saturating_sub(2 * self.most_copied())
    }

    fn commit(&self, values: &[(CacheKey, Vec<u8>)]) -> Result<(), FileError> {
        let limit = self.limit(self.bytes()?);
        let new: u64 = values.iter().map(|(_, value)| room_of(value.len())).sum();
        loop {
            let is_last = change(&self.database, |tables| {
                let has_room = tables.make_room(limit.saturating_sub(new))?;
                if has_room {
                    for (key, value) in values {
                        tables.insert(*key, value)?;
                    }
                }
                Ok(has_room)
            })?;
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Bytes that an entry may take in the file.
fn room_of(value_bytes: usize) -> u64 {
    let bytes = value_bytes as u64;
    let of_value = match bytes {
        // Several share a page, which is two thirds full on average.
        0..1500 => bytes * 3 / 2,
        _ => (bytes + 100).div_ceil(PAGE).next_power_of_two() * PAGE,
    };
    of_value + ENTRY_OVERHEAD
}

/// The tables within a change.
struct Tables<'t> {
    values: Table<'t, &'static [u8; 32], &'static [u8]>,
    order: Table<'t, u64, &'static [u8; 32]>,
    meta: Table<'t, &'static str, &'static [u8]>,
    room: u64,
    next: u64,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let order = transaction.open_table(ORDER)?;
        let meta = transaction.open_table(META)?;
        let next = order.last()?.map_or(0, |(at, _)| at.value() + 1);
        let room = meta.get(ROOM)?.and_then(|n| n.value().try_into().ok());
        Ok(Self {
            values: transaction.open_table(VALUES)?,
            order,
            meta,
            room: room.map_or(0, u64::from_le_bytes),
            next,
        })
    }

    /// Removes the oldest entries until all take so much, or so many at once. Returns true where all take so much.
    fn make_room(&mut self, most: u64) -> Result<bool, redb::Error> {
        for _ in 0..REMOVED_AT_ONCE {
            if self.room <= most {
                break;
            }
            let Some((_, key)) = self.order.pop_first()? else {
                return Ok(true);
            };
            let removed = self.values.remove(key.value())?;
            let freed = removed.map_or(ENTRY_OVERHEAD, |value| room_of(value.value().len()));
            self.room = self.room.saturating_sub(freed);
        }
        Ok(self.room <= most)
    }

    fn insert(&mut self, key: CacheKey, value: &[u8]) -> Result<(), redb::Error> {
        let replaced = self.values.insert(&key.0, value)?;
        self.room += room_of(value.len());
        match replaced.map(|old| room_of(old.value().len())) {
            // It stands in the order already.
            Some(before) => self.room = self.room.saturating_sub(before),
            None => {
                self.order.insert(self.next, &key.0)?;
                self.next += 1;
            }
        }
        Ok(())
    }

    fn close(mut self) -> Result<(), redb::Error> {
        let room = self.room.to_le_bytes();
        self.meta.insert(ROOM, room.as_slice())?;
        Ok(())
    }
}

/// Changes the tables, and commits that.
fn change<T>(
    database: &Database,
    change: impl FnOnce(&mut Tables<'_>) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    let mut transaction = database.begin_write()?;
    // After a crash the file opens at once, whatever its size.
    transaction.set_quick_repair(true);
    let mut tables = Tables::open(&transaction)?;
    let changed = change(&mut tables)?;
    tables.close()?;
    transaction.commit()?;
    Ok(changed)
}

fn open(path: &Path, max_bytes: u64) -> Result<Store, FileError> {
    let opening = || -> Result<Store, FileError> {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE);
        // Vectors tell much of texts: nobody else may read them.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        drop(options.mode(0o600).open(path)?);
        let database = builder.create(path).map_err(database_error)?;
        let hash_key = prepare(&database)?;
        Ok(Store {
            database,
            path: path.to_owned(),
            hash_key,
            max_bytes,
        })
    };
    // Where a file is damaged, the library may panic.
    catch_unwind(AssertUnwindSafe(opening)).unwrap_or(Err(FileError::Damaged))
}

/// Makes the tables where they are missing, and the secret that keys are made with.
fn prepare(database: &Database) -> Result<HashKey, redb::Error> {
    change(database, |tables| {
        if tables.meta.get(ROOM)?.is_none() {
            // Of an earlier release, which did not count it.
            for entry in tables.values.iter()? {
                tables.room += room_of(entry?.1.value().len());
            }
        }
        let known = tables.meta.get(HASH_KEY)?;
        let known: Option<[u8; 32]> = known.and_then(|key| key.value().try_into().ok());
        let hash_key = known.map_or_else(HashKey::random, HashKey::from);
        tables.meta.insert(HASH_KEY, hash_key.bytes().as_slice())?;
        Ok(hash_key)
    })
}

fn database_error(error: DatabaseError) -> FileError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            FileError::InUse
        }
        DatabaseError::UpgradeRequired(_) => FileError::Damaged,
        DatabaseError::Storage(error) => redb::Error::from(error).into(),
        other => FileError::Storage(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{key::Head, tests::value};

    fn key(n: u64) -> CacheKey {
        CacheKey(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn the_file_is_never_longer_than_its_limit_and_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        for (dimensions, mib) in [(1024, 8), (64, 8), (8000, 10)] {
            let path = folder.path().join(format!("{dimensions}-{mib}"));
            let most = mib << 20;
            let store = Store::open(&path, most).unwrap();
            let values = value(1, dimensions);
            let value = values.get(Head::Dense).unwrap();
            let n = most / (dimensions as u64 * 4 + 200);
            let mut longest = 0;
            for first in (0..n).step_by(200) {
                let values: Vec<_> = (first..n.min(first + 200))
                    .map(|i| (key(i), Arc::clone(value)))
                    .collect();
                store.write(&values).unwrap();
                longest = longest.max(store.bytes().unwrap());
            }
            let keys: Vec<CacheKey> = (0..n).map(key).collect();
            let found = store.read(&keys).unwrap();
            let kept = found
                .iter()
                .rev()
                .take_while(|value| value.is_some())
                .count() as u64;
            let n_found = found.iter().flatten().count() as u64;
            assert_eq!(kept, n_found, "the oldest went");
            let numbers = kept * dimensions as u64 * 4;
            assert!(longest <= most, "{dimensions} {mib}: {longest}");
            assert!(numbers >= most / 10, "{dimensions} {mib}: {numbers}");
        }
    }
}
