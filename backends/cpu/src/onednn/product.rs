//! Products of matrices, compiled for one size each, and weights packed for them.

use std::{
    ffi::CStr,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use embedgate_core::encoder::Activation;

use super::{
    Aligned, Format, Instructions, Library, Line, Number, OneDnnError, Owned, Tile, check,
    ffi::{self, Handle},
    signed,
};

/// The size of a product and the formats of its operands: `dst = activation(scales * src x weights + bias)`.
///
/// `src` has shape `(rows, inner)`, the weights `(inner, columns)`, `dst` `(rows, columns)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
    /// The number format of `src` and the weights.
    pub(crate) format: Format,
    /// Numbers from one row of `src` to the next.
    pub(crate) src_stride: usize,
    pub(crate) dst_format: Format,
    /// Numbers from one row of `dst` to the next.
    pub(crate) dst_stride: usize,
    /// True when each column is multiplied by a number of its own, before anything is added.
    pub(crate) has_scales: bool,
    pub(crate) has_bias: bool,
    pub(crate) activation: Option<Activation>,
}

/// The layout of a product's right operand.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// However the product likes it best.
    Any,
    /// As these weights lie.
    Packed(&'a Weights),
    /// By strides of rows and columns.
    Strided([usize; 2]),
}

/// A compiled product of one size.
pub(crate) struct Product {
    library: &'static Library,
    shape: Shape,
    right_strides: Option<[usize; 2]>,
    primitive: Owned,
    src: Owned,
    right: Owned,
    dst: Owned,
    /// The layout of bias and scales.
    column: Owned,
    scale: Owned,
    scratch: Owned,
    scratch_bytes: usize,
}

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
        let scale = Owned::new("a row", f.dnnl_memory_desc_destroy, |out| {
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
        })?;
        let right_strides = match right {
            Right::Strided(strides) => Some(strides),
            Right::Any | Right::Packed(_) => None,
        };
        let wanted = match right {
            Right::Strided(strides) => {
                library.descriptor(shape.format, [inner, columns], strides)?
            }
            Right::Packed(weights) => clone_of(library, weights.layout.handle)?,
            Right::Any => {
                let dims = [signed(inner), signed(columns)];
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
                })?
            }
        };
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
            clone_of(library, owned)
        };
        let (right, scratch) = (
            queried(ffi::QUERY_WEIGHTS)?,
            queried(ffi::QUERY_SCRATCHPAD)?,
        );
        let implementation = implementation(library, &description);
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

    /// Multiplies by packed weights.
    ///
    /// # Panics
    /// When an operand does not have the size, the format or the layout that the product was compiled for.
    pub(crate) fn run<A: Number, C: Number>(
        &self,
        src: &[A],
        weights: &Weights,
        columns: &Columns,
        dst: &mut Tile<'_, C>,
    ) -> Result<(), OneDnnError> {
        let Shape {
            inner,
            columns: n,
            format,
            ..
        } = self.shape;
        assert!(self.right_strides.is_none(), "a product of a view");
        let weights_are = (weights.inner, weights.columns, weights.format);
        assert_eq!(weights_are, (inner, n, format), "other weights");
        // SAFETY: both descriptors are alive.
        let is_like = unsafe {
            (self.library.functions.dnnl_memory_desc_equal)(
                self.right.handle,
                weights.layout.handle,
            )
        };
        assert_ne!(is_like, 0, "weights in another layout");
        // SAFETY: just checked.
        unsafe { self.run_raw(src, weights.data.pointer(), columns, dst) }
    }

    /// Multiplies by a matrix as it lies.
    ///
    /// # Panics
    /// As [`Product::run`].
    pub(crate) fn run_view<A: Number, C: Number>(
        &self,
        src: &[A],
        right: &[A],
        dst: &mut Tile<'_, C>,
    ) -> Result<(), OneDnnError> {
        let [down, across] = self.right_strides.expect("a product of packed weights");
        let last = (self.shape.inner - 1) * down + (self.shape.columns - 1) * across;
        assert!(right.len() > last, "the right operand is too short");
        // SAFETY: just checked.
        unsafe {
            self.run_raw(
                src,
                right.as_ptr().cast_mut().cast(),
                &Columns::default(),
                dst,
            )
        }
    }

    /// # Safety
    /// `right` must point to a matrix of this product's layout.
    unsafe fn run_raw<A: Number, C: Number>(
        &self,
        src: &[A],
        right: Handle,
        columns: &Columns,
        dst: &mut Tile<'_, C>,
    ) -> Result<(), OneDnnError> {
        let Shape {
            rows,
            inner,
            columns: n,
            ..
        } = self.shape;
        assert_eq!(
            (A::FORMAT, C::FORMAT),
            (self.shape.format, self.shape.dst_format)
        );
        assert!(
            src.len() >= (rows - 1) * self.shape.src_stride + inner,
            "src is too short"
        );
        assert_eq!((dst.columns(), dst.stride()), (n, self.shape.dst_stride));
        assert!(dst.rows() >= rows, "dst is too short");
        let library = self.library;
        let pointer = |numbers: &[f32]| numbers.as_ptr().cast_mut().cast();
        let src = library.memory(self.src.handle, src.as_ptr().cast_mut().cast())?;
        let right = library.memory(self.right.handle, right)?;
        let dst = library.memory(self.dst.handle, dst.pointer().cast())?;
        let mut arguments = vec![
            (ffi::ARG_SRC, &src),
            (ffi::ARG_WEIGHTS, &right),
            (ffi::ARG_DST, &dst),
        ];
        let (bias, scales);
        if self.shape.has_bias {
            assert_eq!(columns.bias.len(), n, "bias");
            bias = library.memory(self.column.handle, pointer(&columns.bias))?;
            arguments.push((ffi::ARG_BIAS, &bias));
        }
        if self.shape.has_scales {
            assert_eq!(columns.scales.len(), n, "scales");
            scales = library.memory(self.scale.handle, pointer(&columns.scales))?;
            arguments.push((ffi::ARG_ATTR_SCALES | ffi::ARG_WEIGHTS, &scales));
        }
        let scratch = (self.scratch_bytes > 0).then_some((&self.scratch, self.scratch_bytes));
        // SAFETY: sizes and formats were checked above, `dst` is this caller's alone, the rest is only read.
        unsafe { library.execute(&self.primitive, scratch, &arguments) }
    }
}

/// The numbers that belong to the columns of a product.
#[derive(Default)]
pub(crate) struct Columns {
    /// Added to each, where the product has a bias.
    pub(crate) bias: Vec<f32>,
    /// Multiplied with each, where the product has scales.
    pub(crate) scales: Vec<f32>,
}

fn clone_of(library: &Library, descriptor: Handle) -> Result<Owned, OneDnnError> {
    let f = &library.functions;
    Owned::new("a copy of a layout", f.dnnl_memory_desc_destroy, |out| {
        // SAFETY: the caller's descriptor is alive.
        unsafe { (f.dnnl_memory_desc_clone)(out, descriptor) }
    })
}

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
        let code = match activation {
            Activation::Gelu => ffi::GELU_ERF,
            Activation::GeluTanh => ffi::GELU_TANH,
            Activation::Relu => ffi::RELU,
        };
        // SAFETY: both are alive; the attributes take a copy.
        unsafe {
            let status = (f.dnnl_post_ops_append_eltwise)(operations.handle, code, 0.0, 0.0);
            check("an activation", status)?;
            let status = (f.dnnl_primitive_attr_set_post_ops)(handle, operations.handle);
            check("an activation", status)?;
        }
    }
    Ok(attributes)
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

/// A right operand in the layout that products of its size like best.
pub(crate) struct Weights {
    layout: Owned,
    data: Aligned,
    inner: usize,
    columns: usize,
    format: Format,
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
        let layout = clone_of(library, like.right.handle)?;
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
        self.data.0.len() * size_of::<Line>()
    }
}
