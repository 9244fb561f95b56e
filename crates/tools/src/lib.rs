//! The tools of embedgate that no server needs: [`mod@bench`] puts load on embedding servers, [`baseline`] is the server that only
//! answers, which a gateway is compared with, [`columns`] writes vectors as Parquet and npz, [`table`] prints tables.
//!
//! It knows no configuration and no model: the commands of the program read those.

pub mod baseline;
pub mod bench;
pub mod columns;
pub mod table;
