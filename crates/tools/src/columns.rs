//! Files of columns: Parquet, and `NumPy`'s npz.

mod merge;
mod npz;
mod parquet;
mod rows;

pub use self::{
    merge::merge,
    npz::Npz,
    parquet::{IdKind, Parquet},
    rows::TextRows,
};

/// The id of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowId {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}
