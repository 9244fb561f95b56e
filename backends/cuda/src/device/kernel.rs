//! Kernels that a device has loaded.

use std::{ffi::CString, ptr::null_mut, sync::Arc};

use super::Device;
use crate::{
    error::DriverError,
    ffi::{Address, Handle, MOST_SHARED},
    library::Shipped,
};

/// More shared memory than this needs leave.
const SHARED_WITHOUT_LEAVE: u32 = 48 << 10;

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    Address(Address),
    Int(i32),
    Float(f32),
}

/// A kernel that a device has loaded.
#[derive(Debug)]
pub(crate) struct Kernel {
    device: Arc<Device>,
    module: Handle,
    pub(super) function: Handle,
    pub(super) shared: u32,
    pub(super) threads: u32,
}

// SAFETY: modules and functions may be used by any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// The entry of a kernel, and the size of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    /// Bytes of shared memory of a block.
    pub(crate) shared: u32,
    /// Threads of a block.
    pub(crate) threads: u32,
}

impl<'a> Entry<'a> {
    /// Returns the entry of a kernel that ships.
    pub(crate) fn of(shipped: &'a Shipped) -> Self {
        Self {
            name: &shipped.entry,
            shared: shipped.shared,
            threads: shipped.threads,
        }
    }
}

impl Kernel {
    /// Loads machine code, or PTX that ends with a zero.
    pub(crate) fn load(
        device: &Arc<Device>,
        image: &[u8],
        entry: Entry<'_>,
    ) -> Result<Self, DriverError> {
        let mut module = null_mut();
        {
            let functions = device.enter()?;
            // SAFETY: the image is a whole ELF file, or text that ends with a zero.
            let called =
                unsafe { (functions.cuModuleLoadData)(&raw mut module, image.as_ptr().cast()) };
            functions.check("cuModuleLoadData", called)?;
        }
        // From here on it is unloaded where something fails, which enters the device.
        let mut kernel = Self {
            device: Arc::clone(device),
            module,
            function: null_mut(),
            shared: entry.shared,
            threads: entry.threads,
        };
        kernel.find(entry)?;
        Ok(kernel)
    }

    fn find(&mut self, entry: Entry<'_>) -> Result<(), DriverError> {
        let functions = self.device.enter()?;
        let name = CString::new(entry.name).unwrap_or_default();
        // SAFETY: the module was loaded, the name ends with a zero.
        let called = unsafe {
            (functions.cuModuleGetFunction)(&raw mut self.function, self.module, name.as_ptr())
        };
        functions.check("cuModuleGetFunction", called)?;
        if entry.shared > SHARED_WITHOUT_LEAVE {
            // SAFETY: the function was found.
            let called = unsafe {
                (functions.cuFuncSetAttribute)(self.function, MOST_SHARED, entry.shared as i32)
            };
            functions.check("cuFuncSetAttribute", called)?;
        }
        Ok(())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Ok(functions) = self.device.enter() {
            // SAFETY: it was loaded here, and nothing is launched of it any more.
            unsafe { (functions.cuModuleUnload)(self.module) };
        }
    }
}
