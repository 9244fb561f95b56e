//! Descriptions of matrices, and matrices by a description and a pointer.

use super::{
    ffi::Handle,
    library::Library,
    number::Format,
    object::{OneDnnError, Owned},
};

impl Library {
    /// Describes a matrix by its numbers of rows and columns, and the steps from one to the next.
    pub(super) fn descriptor(
        &self,
        format: Format,
        dims: [usize; 2],
        strides: [usize; 2],
    ) -> Result<Owned, OneDnnError> {
        let (dims, strides) = (dims.map(signed), strides.map(signed));
        Owned::new(
            "a description of a matrix",
            self.functions.dnnl_memory_desc_destroy,
            // SAFETY: both arrays have as many entries as it is told.
            |out| unsafe {
                (self.functions.dnnl_memory_desc_create_with_strides)(
                    out,
                    2,
                    dims.as_ptr(),
                    format.code(),
                    strides.as_ptr(),
                )
            },
        )
    }

    /// Makes a matrix of data in this layout. The data is only noted.
    pub(super) fn memory(&self, descriptor: Handle, data: Handle) -> Result<Owned, OneDnnError> {
        Owned::new(
            "a matrix",
            self.functions.dnnl_memory_destroy,
            // SAFETY: the descriptor is alive; the data is only noted here.
            |out| unsafe {
                (self.functions.dnnl_memory_create)(out, descriptor, self.engine, data)
            },
        )
    }

    /// Copies a description.
    pub(super) fn clone_of(&self, descriptor: Handle) -> Result<Owned, OneDnnError> {
        let f = &self.functions;
        Owned::new("a copy of a layout", f.dnnl_memory_desc_destroy, |out| {
            // SAFETY: the caller's descriptor is alive.
            unsafe { (f.dnnl_memory_desc_clone)(out, descriptor) }
        })
    }
}

/// Turns a size into the library's type.
pub(super) fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
