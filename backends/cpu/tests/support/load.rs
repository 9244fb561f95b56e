//! Loads models for the other tests.

use std::path::Path;

use embedgate_core::{ModelFolder, Pooling, Precision, library::LibraryPaths};
use embedgate_cpu::{CpuBackend, Options, runtime};

/// The library that `scripts/setup` fetches.
pub(crate) fn candidates() -> LibraryPaths {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    LibraryPaths {
        named: Some(root.join(".embedgate/onednn")),
        folders: Vec::new(),
    }
}

/// A model by that library.
pub(crate) fn load(folder: &ModelFolder, precision: Precision) -> CpuBackend {
    load_on(2, folder, precision)
}

/// Loads a model by that library, with `threads` threads.
pub(crate) fn load_on(threads: usize, folder: &ModelFolder, precision: Precision) -> CpuBackend {
    let options = Options {
        pooling: folder.pooling.unwrap_or(Pooling::CLS),
        max_sequence_tokens: folder.max_sequence_tokens,
        special_token_ids: vec![0, 1, 2, 3],
        threads,
        cores: Vec::new(),
        precision,
    };
    let library = runtime::load(&candidates()).unwrap();
    CpuBackend::load(folder, library, options).unwrap()
}
