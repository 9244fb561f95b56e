//! The library's objects and the errors of its functions.

use std::{ffi::c_int, ptr};

use super::ffi::Handle;

/// The failed operation within the library, and its status.
#[derive(Clone, Debug, thiserror::Error)]
#[error("oneDNN: {what}: {status}")]
pub(crate) struct OneDnnError {
    what: &'static str,
    status: &'static str,
}

/// Turns a status of the library into an error that says what failed.
pub(super) fn check(what: &'static str, status: c_int) -> Result<(), OneDnnError> {
    let status = match status {
        0 => return Ok(()),
        1 => "out of memory",
        2 => "invalid arguments",
        3 => "not implemented",
        5 => "runtime error",
        _ => "failed",
    };
    Err(OneDnnError { what, status })
}

/// One of the library's objects, destroyed by its own function.
pub(super) struct Owned {
    pub(super) handle: Handle,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
}

// SAFETY: descriptors and primitives are immutable, and may be used and destroyed on any thread.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    /// Makes an object by a function that writes its handle; `what` names it in errors.
    pub(super) fn new(
        what: &'static str,
        destroy: unsafe extern "C" fn(Handle) -> c_int,
        create: impl FnOnce(*mut Handle) -> c_int,
    ) -> Result<Self, OneDnnError> {
        let mut handle = ptr::null_mut();
        check(what, create(&raw mut handle))?;
        Ok(Self { handle, destroy })
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the handle is of the kind that this function destroys, and nobody else has it.
        unsafe { (self.destroy)(self.handle) };
    }
}
