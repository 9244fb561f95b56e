//! Weights that are packed once, in the layout that their products like best.

use std::ptr;

use super::Product;
use crate::onednn::{
    aligned::Aligned,
    ffi,
    number::{Format, Number},
    object::{OneDnnError, Owned},
};

/// A right operand in the layout that products of its size like best.
pub(crate) struct Weights {
    pub(super) layout: Owned,
    pub(super) data: Aligned,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) format: Format,
}

impl Weights {
    /// Packs weights for products like this one.
    ///
    /// `values` has shape `(columns, inner)`, as PyTorch keeps the weights of linear layers.
    ///
    /// # Panics
    /// When `values` has another size or format.
    pub(crate) fn pack<T: Number>(like: &Product, values: &[T]) -> Result<Self, OneDnnError> {
        let (library, shape) = (like.library, like.shape);
        library.use_this_thread_alone();
        let f = &library.functions;
        assert_eq!(values.len(), shape.inner * shape.columns);
        assert_eq!(T::FORMAT, shape.format);
        let (dims, strides) = ([shape.inner, shape.columns], [1, shape.inner]);
        let plain = library.descriptor(shape.format, dims, strides)?;
        let layout = library.clone_of(like.right.handle)?;
        let mut data = Aligned::default();
        // SAFETY: the descriptor is alive.
        data.grow(unsafe { (f.dnnl_memory_desc_get_size)(layout.handle) });
        let description = Owned::new("packing", f.dnnl_primitive_desc_destroy, |out| {
            // SAFETY: both descriptors and the engine are alive; no attributes.
            unsafe {
                (f.dnnl_reorder_primitive_desc_create)(
                    out,
                    plain.handle,
                    library.engine,
                    layout.handle,
                    library.engine,
                    ptr::null_mut(),
                )
            }
        })?;
        let primitive = Owned::new("packing", f.dnnl_primitive_destroy, |out| {
            // SAFETY: the description is alive.
            unsafe { (f.dnnl_primitive_create)(out, description.handle) }
        })?;
        let from = library.memory(plain.handle, values.as_ptr().cast_mut().cast())?;
        let to = library.memory(layout.handle, data.pointer_mut())?;
        let arguments = [(ffi::ARG_SRC, &from), (ffi::ARG_DST, &to)];
        // SAFETY: `values` has the size of `plain`, `data` that of `layout`, and nobody else has it yet.
        unsafe { library.execute(&primitive, None, &arguments)? };
        Ok(Self {
            layout,
            data,
            inner: shape.inner,
            columns: shape.columns,
            format: shape.format,
        })
    }

    /// Returns the size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.data.bytes()
    }
}
