//! The cache's file while it is open: reads, and writes that keep it within its length.
//!
//! redb doubles its file whenever it finds no room, from 4 GiB on it adds that much, and it gives each value of more than half a page
//! pages of its own. So what is kept is counted in pages, and kept so far below the file's length that it never grows beyond its limit.
//!
//! Pages that a commit frees are free only when no read that began before it goes on: reads are short.

pub(super) mod error;
mod room;
mod tables;

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use embedgate_request::HashKey;
use redb::{Database, ReadableDatabase};

use self::{
    error::FileError,
    room::{PAGE, limit, most_copied, room_of},
    tables::{VALUES, change, prepare},
};
use crate::cache::{key::CacheKey, value::CachedValue};

/// Memory for pages of the file; the system's own cache holds them too.
const PAGE_CACHE: usize = 16 << 20;
const KEYS_A_READ: usize = 64;

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
        let most = most_copied(self.max_bytes);
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

    fn commit(&self, values: &[(CacheKey, Vec<u8>)]) -> Result<(), FileError> {
        let limit = limit(self.bytes()?, self.max_bytes);
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

/// Opens the file as it is.
fn open(path: &Path, max_bytes: u64) -> Result<Store, FileError> {
    let opening = || -> Result<Store, FileError> {
        let mut builder = Database::builder();
        builder.set_cache_size(PAGE_CACHE);
        // Vectors tell much of texts: nobody else may read them.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        drop(options.mode(0o600).open(path)?);
        let database = builder.create(path).map_err(FileError::of_opening)?;
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

#[cfg(test)]
mod tests {
    use embedgate_core::Head;

    use super::*;
    use crate::cache::tests::value;

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
