//! Products of matrices, compiled for one size each.

mod compile;
pub(super) mod weights;

use embedgate_core::encoder::Activation;

use self::weights::Weights;
use super::{
    ffi::{self, Handle},
    library::Library,
    number::{Format, Number},
    object::{OneDnnError, Owned},
    tile::Tile,
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
