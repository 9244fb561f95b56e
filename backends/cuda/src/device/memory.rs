//! Blocks of a device's memory, and of the host's that a device reads and writes.

use std::{
    marker::PhantomData,
    ptr::{NonNull, null_mut},
    sync::Arc,
};

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

    /// Where it is on the device.
    pub(crate) fn address(&self) -> Address {
        self.address
    }

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

/// Numbers that a device may read and write while the processor does something else: their memory stays where it is.
#[derive(Debug)]
pub(crate) struct Pinned<T> {
    device: Arc<Device>,
    begin: NonNull<T>,
    length: usize,
    of: PhantomData<T>,
}

// SAFETY: it owns its memory.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T: Copy + Default> Pinned<T> {
    /// So many numbers, which are zeros.
    pub(crate) fn new(device: &Arc<Device>, length: usize) -> Result<Self, DriverError> {
        let functions = device.enter()?;
        let (mut begin, length) = (null_mut(), length.max(1));
        // SAFETY: it writes an address.
        let called =
            unsafe { (functions.cuMemAllocHost_v2)(&raw mut begin, length * size_of::<T>()) };
        functions.check("cuMemAllocHost", called)?;
        let begin = NonNull::new(begin.cast::<T>()).ok_or(DriverError::Failed {
            call: "cuMemAllocHost",
            code: 0,
            name: "no address".into(),
        })?;
        for i in 0..length {
            // SAFETY: there is room for so many.
            unsafe { begin.add(i).write(T::default()) };
        }
        Ok(Self {
            device: Arc::clone(device),
            begin,
            length,
            of: PhantomData,
        })
    }

    pub(crate) fn numbers(&self) -> &[T] {
        // SAFETY: so many were written, and the device only writes in calls that borrow this mutably until they are waited for.
        unsafe { std::slice::from_raw_parts(self.begin.as_ptr(), self.length) }
    }

    pub(crate) fn numbers_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.begin.as_ptr(), self.length) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if let Ok(functions) = self.device.enter() {
            // SAFETY: it came from cuMemAllocHost, and nobody has its address any more.
            unsafe { (functions.cuMemFreeHost)(self.begin.as_ptr().cast()) };
        }
    }
}
