//! Blocks of a device's memory.

use std::sync::Arc;

use super::Device;
use crate::{error::DriverError, ffi::Address};

/// A block of a device's memory.
#[derive(Debug)]
pub(crate) struct Buffer {
    device: Arc<Device>,
    pub(super) address: Address,
    pub(super) bytes: usize,
}

impl Buffer {
    /// A block of so many bytes, which hold anything.
    pub(crate) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let mut address = 0;
        let bytes = bytes.max(1);
        // SAFETY: it writes an address.
        let called = unsafe { (functions.cuMemAlloc_v2)(&raw mut address, bytes) };
        functions.check("cuMemAlloc", called)?;
        Ok(Self {
            device: Arc::clone(device),
            address,
            bytes,
        })
    }

    /// Its address on the device.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // After a fault or a reset it is gone already.
        if let Ok(functions) = self.device.enter() {
            // SAFETY: the block is this one's, and nobody has its address any more.
            unsafe { (functions.cuMemFree_v2)(self.address) };
        }
    }
}
