//! Files of columns: Parquet, and `NumPy`'s npz.

mod npz;
mod parquet;

pub use self::{npz::Npz, parquet::Parquet};
