//! The compiling of products, for one size and layout each.

use std::{
    ffi::CStr,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use embedgate_core::encoder::Activation;

use super::{Product, Right, Shape};
use crate::onednn::{
    ffi,
    library::{Instructions, Library},
    matrix::signed,
    number::Format,
    object::{OneDnnError, Owned, check},
};

impl Product {
    /// Compiles a product.
    pub(crate) fn new(
        library: &'static Library,
        shape: Shape,
        right: Right<'_>,
    ) -> Result<Self, OneDnnError> {
        library.use_this_thread_alone();
        let f = &library.functions;
        let Shape {
            rows,
            inner,
            columns,
            ..
        } = shape;
        let src = library.descriptor(shape.format, [rows, inner], [shape.src_stride, 1])?;
        let dst = library.descriptor(shape.dst_format, [rows, columns], [shape.dst_stride, 1])?;
        let column = library.descriptor(Format::F32, [1, columns], [columns, 1])?;
        let scale = vector(library, columns)?;
        let right_strides = match right {
            Right::Strided(strides) => Some(strides),
            Right::Any | Right::Packed(_) => None,
        };
        let wanted = wanted(library, shape, right)?;
        let attributes = attributes(library, shape)?;
        let bias = if shape.has_bias {
            column.handle
        } else {
            ptr::null_mut()
        };
        let description = Owned::new(
            "a description of a product",
            f.dnnl_primitive_desc_destroy,
            // SAFETY: all descriptors are alive; a missing bias is a null pointer.
            |out| unsafe {
                (f.dnnl_matmul_primitive_desc_create)(
                    out,
                    library.engine,
                    src.handle,
                    wanted.handle,
                    bias,
                    dst.handle,
                    attributes.handle,
                )
            },
        )?;
        let primitive = Owned::new(
            "compiling a product",
            f.dnnl_primitive_destroy,
            // SAFETY: the description is alive.
            |out| unsafe { (f.dnnl_primitive_create)(out, description.handle) },
        )?;
        let queried = |what| {
            // SAFETY: the description is alive; what comes back belongs to it and is copied at once.
            let owned = unsafe { (f.dnnl_primitive_desc_query_md)(description.handle, what, 0) };
            library.clone_of(owned)
        };
        let (right, scratch) = (
            queried(ffi::QUERY_WEIGHTS)?,
            queried(ffi::QUERY_SCRATCHPAD)?,
        );
        say_implementation(library, shape, &description);
        // SAFETY: the descriptor is alive.
        let scratch_bytes = unsafe { (f.dnnl_memory_desc_get_size)(scratch.handle) };
        Ok(Self {
            library,
            shape,
            right_strides,
            primitive,
            src,
            right,
            dst,
            column,
            scale,
            scratch,
            scratch_bytes,
        })
    }
}

/// Describes a row of one number a column.
fn vector(library: &Library, columns: usize) -> Result<Owned, OneDnnError> {
    let f = &library.functions;
    Owned::new("a row", f.dnnl_memory_desc_destroy, |out| {
        let (dims, strides) = ([signed(columns)], [1]);
        // SAFETY: both arrays have one entry.
        unsafe {
            (f.dnnl_memory_desc_create_with_strides)(
                out,
                1,
                dims.as_ptr(),
                Format::F32.code(),
                strides.as_ptr(),
            )
        }
    })
}

/// Describes the right operand that is asked for, whose layout may be left to the product.
fn wanted(library: &Library, shape: Shape, right: Right<'_>) -> Result<Owned, OneDnnError> {
    let f = &library.functions;
    let dims = [shape.inner, shape.columns];
    match right {
        Right::Strided(strides) => library.descriptor(shape.format, dims, strides),
        Right::Packed(weights) => library.clone_of(weights.layout.handle),
        Right::Any => {
            let dims = dims.map(signed);
            Owned::new("a layout", f.dnnl_memory_desc_destroy, |out| {
                // SAFETY: the array has two entries.
                unsafe {
                    (f.dnnl_memory_desc_create_with_tag)(
                        out,
                        2,
                        dims.as_ptr(),
                        shape.format.code(),
                        ffi::TAG_ANY,
                    )
                }
            })
        }
    }
}

/// Describes what is done beside the product: scales and an activation; scratch memory is of the caller.
fn attributes(library: &Library, shape: Shape) -> Result<Owned, OneDnnError> {
    let f = &library.functions;
    let attributes = Owned::new("attributes", f.dnnl_primitive_attr_destroy, |out| {
        // SAFETY: it writes a handle.
        unsafe { (f.dnnl_primitive_attr_create)(out) }
    })?;
    let handle = attributes.handle;
    // SAFETY: the attributes are alive.
    let status =
        unsafe { (f.dnnl_primitive_attr_set_scratchpad_mode)(handle, ffi::SCRATCHPAD_USER) };
    check("scratch memory of the caller", status)?;
    if shape.has_scales {
        let by_column = 1 << 1;
        // SAFETY: as above.
        let status =
            unsafe { (f.dnnl_primitive_attr_set_scales_mask)(handle, ffi::ARG_WEIGHTS, by_column) };
        check("scales", status)?;
    }
    if let Some(activation) = shape.activation {
        let operations = Owned::new("operations", f.dnnl_post_ops_destroy, |out| {
            // SAFETY: it writes a handle.
            unsafe { (f.dnnl_post_ops_create)(out) }
        })?;
        // The swish of a factor of 1 is SiLU; the others read no factor but the slope of ReLU below 0.
        let (code, factor) = match activation {
            Activation::Gelu => (ffi::GELU_ERF, 0.0),
            Activation::GeluTanh => (ffi::GELU_TANH, 0.0),
            Activation::Relu => (ffi::RELU, 0.0),
            Activation::Silu => (ffi::SWISH, 1.0),
            Activation::Tanh => (ffi::TANH, 0.0),
        };
        // SAFETY: both are alive; the attributes take a copy.
        unsafe {
            let status = (f.dnnl_post_ops_append_eltwise)(operations.handle, code, factor, 0.0);
            check("an activation", status)?;
            let status = (f.dnnl_primitive_attr_set_post_ops)(handle, operations.handle);
            check("an activation", status)?;
        }
    }
    Ok(attributes)
}

/// Tells the log what runs a product, and warns where that is slow.
fn say_implementation(library: &Library, shape: Shape, description: &Owned) {
    let implementation = implementation(library, description);
    tracing::trace!(%implementation, "compiled {shape:?}");
    if !implementation.starts_with("brg") && library.instructions >= Instructions::Avx512 {
        // Where one is slow all of its format are: the first says it.
        static IS_SAID: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];
        if !IS_SAID[shape.format as usize].swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "oneDNN has no fast product for {shape:?} on this processor: {implementation}"
            );
        }
    }
}

/// The name of what runs a product, such as `brg:avx512_core_amx`.
fn implementation(library: &Library, description: &Owned) -> String {
    let mut name: ffi::Name = ptr::null();
    // SAFETY: the description is alive, and this query writes a pointer to a name that belongs to it.
    let status = unsafe {
        (library.functions.dnnl_primitive_desc_query)(
            description.handle,
            ffi::QUERY_IMPLEMENTATION,
            0,
            (&raw mut name).cast(),
        )
    };
    if status != 0 || name.is_null() {
        return String::new();
    }
    // SAFETY: a name ends with a zero, and is copied while the description is alive.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}
