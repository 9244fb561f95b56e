//! The stand-in for the driver, which cargo builds with these tests, and models on it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use embedgate_core::{ModelFolder, Pooling};
use embedgate_cuda::{CudaBackend, Device, DriverError, Format, Options};

pub(crate) use cuda_simulator::library;

/// Its next device, so that tests have devices of their own.
pub(crate) fn open() -> Result<Arc<Device>, DriverError> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Device::open(Some(&library()), number % DEVICES)
}

/// As many as it has where nothing else is said.
const DEVICES: usize = 16;

pub(crate) fn tiny_bge_m3() -> ModelFolder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-bge-m3");
    ModelFolder::open(&path).unwrap()
}

/// Options of a model with some memory and without measurements, which mean nothing here.
pub(crate) fn options(folder: &ModelFolder, format: Format) -> Options {
    Options {
        pooling: folder.pooling.unwrap_or(Pooling::CLS),
        max_sequence_tokens: folder.max_sequence_tokens.min(512),
        special_token_ids: vec![0, 1, 2, 3],
        format,
        max_batch_tokens: 1024,
        timed_rows: 0,
    }
}

pub(crate) fn load(folder: &ModelFolder, format: Format) -> CudaBackend {
    load_with(folder, format, |_| ())
}

/// A model with other options.
pub(crate) fn load_with(
    folder: &ModelFolder,
    format: Format,
    change: impl FnOnce(&mut Options),
) -> CudaBackend {
    let mut options = options(folder, format);
    change(&mut options);
    CudaBackend::load(folder, &open().unwrap(), 0, options).unwrap()
}
