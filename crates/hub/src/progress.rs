//! The progress of a pull, for whoever shows it.

use crate::listing::{ListedFile, Listing};

/// Hears how a pull goes on.
pub trait Progress: Sync {
    /// The hub that has the model, and the files that are needed, by path and bytes.
    fn begin(&self, listing: &Listing, files: &[&ListedFile]);
    /// Bytes of a file came, or were there.
    fn came(&self, file: usize, bytes: u64);
    /// Bytes that were counted have to come again.
    fn lost(&self, file: usize, bytes: u64);
    /// A file is whole and right.
    fn whole(&self, file: usize);
}
