//! The tables of the file, and their change in one commit.

use embedgate_request::HashKey;
use redb::{Database, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::room::{ENTRY_OVERHEAD, room_of};
use crate::cache::key::CacheKey;

/// Values by their keys.
pub(super) const VALUES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("values");
/// Keys by the order of their writing: the oldest go when the file is full.
const ORDER: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("order");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const HASH_KEY: &str = "hash_key";
/// The sum of what all entries take, as [`room_of`] counts.
const ROOM: &str = "room";
/// Entries that go in one commit, where many must: of a file that was longer.
const REMOVED_AT_ONCE: usize = 1000;

/// The tables within a change.
pub(super) struct Tables<'t> {
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
    pub(super) fn make_room(&mut self, most: u64) -> Result<bool, redb::Error> {
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

    /// Adds an entry, or replaces its value.
    pub(super) fn insert(&mut self, key: CacheKey, value: &[u8]) -> Result<(), redb::Error> {
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
pub(super) fn change<T>(
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

/// Makes the tables where they are missing, and the secret that keys are made with.
pub(super) fn prepare(database: &Database) -> Result<HashKey, redb::Error> {
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
