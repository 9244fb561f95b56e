//! The stand-in for the driver, which cargo builds with these tests.

use std::{path::PathBuf, sync::Arc};

use embedgate_cuda::{Device, DriverError};

// Built as a library that can be loaded, since it is named here.
use cuda_simulator as _;

/// Its library.
pub fn library() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let library = tests.with_file_name("libcuda_simulator.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}

/// Its first device.
pub fn open() -> Result<Arc<Device>, DriverError> {
    Device::open(Some(&library()), 0)
}
