//! The functions of NVIDIA's driver library, as far as they are needed, found at run time: neither a build nor a start needs it.
//!
//! Source: NVIDIA, CUDA Driver API 12.0, `cuda.h`.

#![expect(unsafe_code, reason = "the driver is a C library")]
#![expect(non_snake_case, reason = "the names are the library's")]

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    path::{Path, PathBuf},
};

use crate::error::DriverError;

/// Any of the driver's objects: a context, a stream, a module, a function or an event.
pub(crate) type Handle = *mut c_void;
/// An address in a device's memory.
pub(crate) type Address = u64;

/// `CU_DEVICE_ATTRIBUTE_*`.
pub(crate) mod attribute {
    use super::c_int;

    pub(crate) const MULTIPROCESSORS: c_int = 16;
    pub(crate) const CAPABILITY_MAJOR: c_int = 75;
    pub(crate) const CAPABILITY_MINOR: c_int = 76;
}

/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
pub(crate) const MOST_SHARED: c_int = 8;
/// `CU_STREAM_NON_BLOCKING`: nothing waits for the default stream.
pub(crate) const NON_BLOCKING: c_uint = 1;

macro_rules! functions {
    ($($name:ident($($type:ty),*);)*) => {
        /// The functions of the loaded library, which stays loaded for as long as the process lives.
        #[derive(Debug)]
        pub(crate) struct Functions {
            $(pub(crate) $name: unsafe extern "C" fn($($type),*) -> c_int,)*
        }

        impl Functions {
            /// Loads a library.
            ///
            /// # Safety
            /// The file must be NVIDIA's driver library: loading it runs its own code, and its functions must have the types
            /// that are given here.
            unsafe fn load(path: &Path) -> Result<Self, libloading::Error> {
                // Leaked: the driver's own threads may outlive any owner.
                let library = Box::leak(Box::new(unsafe { libloading::Library::new(path)? }));
                Ok(Self {
                    $($name: *unsafe { library.get(stringify!($name).as_bytes())? },)*
                })
            }
        }
    };
}

functions! {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut c_int, c_int);
    cuDeviceGetName(*mut c_char, c_int, c_int);
    cuDeviceTotalMem_v2(*mut usize, c_int);
    cuDeviceGetAttribute(*mut c_int, c_int, c_int);
    cuDevicePrimaryCtxRetain(*mut Handle, c_int);
    cuDevicePrimaryCtxReset_v2(c_int);
    cuCtxSetCurrent(Handle);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut Address, usize);
    cuMemFree_v2(Address);
    cuMemcpyHtoDAsync_v2(Address, *const c_void, usize, Handle);
    cuMemcpyDtoHAsync_v2(*mut c_void, Address, usize, Handle);
    cuMemsetD8Async(Address, u8, usize, Handle);
    cuStreamCreate(*mut Handle, c_uint);
    cuStreamDestroy_v2(Handle);
    cuStreamSynchronize(Handle);
    cuEventCreate(*mut Handle, c_uint);
    cuEventRecord(Handle, Handle);
    cuEventSynchronize(Handle);
    cuEventElapsedTime(*mut f32, Handle, Handle);
    cuEventDestroy_v2(Handle);
    cuModuleLoadData(*mut Handle, *const c_void);
    cuModuleUnload(Handle);
    cuModuleGetFunction(*mut Handle, Handle, *const c_char);
    cuFuncSetAttribute(Handle, c_int, c_int);
    cuLaunchKernel(Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void);
    cuGetErrorName(c_int, *mut *const c_char);
}

impl Functions {
    /// Loads the driver's library: the one that is named, or the system's.
    ///
    /// # Errors
    /// [`DriverError::Missing`] says which library could not be loaded, and why.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, DriverError> {
        let path = named.map_or_else(|| PathBuf::from("libcuda.so.1"), Path::to_owned);
        // SAFETY: this is the name of NVIDIA's driver library, or the configuration says that it is one; the types are those of
        // its header.
        unsafe { Self::load(&path) }.map_err(|error| {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            DriverError::Missing {
                library: path,
                reason: reason.unwrap_or_else(|| error.to_string()),
            }
        })
    }

    /// Turns a result of the library into one of ours.
    pub(crate) fn check(&self, call: &'static str, result: c_int) -> Result<(), DriverError> {
        if result == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: it writes a pointer to a static text, or null.
        unsafe { (self.cuGetErrorName)(result, &raw mut name) };
        let name = if name.is_null() {
            "an unknown error".into()
        } else {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned()
        };
        Err(DriverError::Failed {
            call,
            code: result,
            name,
        })
    }
}
