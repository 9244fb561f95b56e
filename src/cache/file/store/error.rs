//! The faults of the cache's file, sorted by what becomes of it.

use std::io;

use redb::DatabaseError;

/// The reason why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cache::file) enum FileError {
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

impl FileError {
    /// The reason why the file cannot be opened.
    pub(super) fn of_opening(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::UpgradeRequired(_) => Self::Damaged,
            DatabaseError::Storage(error) => redb::Error::from(error).into(),
            other => Self::Storage(other.into()),
        }
    }
}
