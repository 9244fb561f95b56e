//! Matrix products by oneDNN: all that is unsafe in this crate, behind a safe face.
//!
//! [`Library`] is the loaded library, [`Weights`] a matrix in the layout that a product likes best, [`Right`] how a right
//! operand lies, [`Product`] a compiled product of one size, [`Tile`] a part of a matrix that one thread writes. Every call
//! runs on the thread that makes it: who calls spreads the work.
//!
//! What makes it sound: sizes and number formats of all operands are checked against the product before the library sees
//! a pointer; tiles of one matrix never overlap, which [`tiles`] alone decides; the library keeps no pointer after a call
//! (its streams on a CPU are synchronous), and its objects are immutable once made.

#![expect(
    unsafe_code,
    reason = "oneDNN is a C library, and tiles of one matrix are written by several threads"
)]

mod ffi;
mod tile;

use std::{
    cell::RefCell,
    ffi::{CStr, c_int},
    path::Path,
    ptr,
    sync::OnceLock,
};

use embedgate_core::encoder::Activation;
use half::bf16;

use self::ffi::{Argument, Functions, Handle};
pub(crate) use self::tile::{Tile, tiles};

/// What went wrong within the library.
#[derive(Clone, Debug, thiserror::Error)]
#[error("oneDNN: {what}: {status}")]
pub(crate) struct OneDnnError {
    what: &'static str,
    status: &'static str,
}

/// Number formats of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    Bf16,
    S8,
}

impl Format {
    /// `dnnl_data_type_t`.
    fn code(self) -> c_int {
        match self {
            Self::F32 => 3,
            Self::Bf16 => 2,
            Self::S8 => 5,
        }
    }
}

/// A number that the library calculates with.
pub(crate) trait Number: Copy + Default + Send + Sync + 'static {
    const FORMAT: Format;
}

impl Number for f32 {
    const FORMAT: Format = Format::F32;
}

impl Number for bf16 {
    const FORMAT: Format = Format::Bf16;
}

impl Number for i8 {
    const FORMAT: Format = Format::S8;
}

/// What the processor has for matrix products, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Instructions {
    /// 256 bits or less.
    Avx2,
    /// 512 bits.
    Avx512,
    /// 512 bits, with dot products of bytes.
    Avx512Vnni,
    /// 512 bits, with dot products of bytes and of bfloat16.
    Avx512Bf16,
    /// Matrices of bytes and of bfloat16.
    Amx,
}

/// The loaded library.
pub struct Library {
    functions: Functions,
    engine: Handle,
    instructions: Instructions,
    version: String,
}

// SAFETY: the engine is immutable, and the library's functions may be called from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

static LOADED: OnceLock<Library> = OnceLock::new();

/// Older releases have no separate scales; the next major one may have other types.
const VERSION: (c_int, c_int) = (3, 2);

impl Library {
    /// Loads the library, once a process: later calls give the one that was loaded first.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn load(path: &Path) -> Result<&'static Self, String> {
        if let Some(library) = Self::loaded() {
            return Ok(library);
        }
        let library = Self::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(LOADED.get_or_init(|| library))
    }

    /// The library that was loaded.
    #[must_use]
    pub fn loaded() -> Option<&'static Self> {
        LOADED.get()
    }

    fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: the configuration, or the place where the set-up puts it, says that this is oneDNN's library; the types
        // are those of its header.
        let functions = unsafe { Functions::load(path) }.map_err(|e| e.to_string())?;
        // SAFETY: it returns a pointer to a static structure.
        let version = unsafe { &*(functions.dnnl_version)() };
        let (major, minor) = VERSION;
        let text = format!("{}.{}.{}", version.major, version.minor, version.patch);
        if version.major != major || version.minor < minor {
            return Err(format!(
                "is oneDNN {text}, needed is {major}.{minor} or a later {major}.x"
            ));
        }
        let mut engine = ptr::null_mut();
        // SAFETY: `engine` is where the library writes a handle.
        let status = unsafe { (functions.dnnl_engine_create)(&raw mut engine, ffi::CPU, 0) };
        check("no engine", status).map_err(|e| e.to_string())?;
        // SAFETY: it takes nothing and returns a number.
        let isa = unsafe { (functions.dnnl_get_effective_cpu_isa)() };
        Ok(Self {
            functions,
            engine,
            instructions: instructions(isa),
            version: text,
        })
    }

    /// What the processor has.
    #[must_use]
    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    /// Such as `3.2.0`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Source: oneDNN 3.2, `dnnl_types.h`, `dnnl_cpu_isa_t`: each has the bits of those before it.
fn instructions(isa: c_int) -> Instructions {
    let has = |bits: c_int| isa & bits == bits;
    match () {
        () if has(0xfef) => Instructions::Amx,
        () if has(0xe7) => Instructions::Avx512Bf16,
        () if has(0x67) => Instructions::Avx512Vnni,
        () if has(0x27) => Instructions::Avx512,
        () => Instructions::Avx2,
    }
}

fn check(what: &'static str, status: c_int) -> Result<(), OneDnnError> {
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
struct Owned {
    handle: Handle,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
}

// SAFETY: descriptors and primitives are immutable, and may be used and destroyed on any thread.
unsafe impl Send for Owned {}
// SAFETY: as above.
unsafe impl Sync for Owned {}

impl Owned {
    fn new(
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

/// Memory on a boundary of cache lines.
#[derive(Default)]
struct Aligned(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(align(64))]
#[expect(dead_code, reason = "only its size and place matter")]
struct Line([u8; 64]);

impl Aligned {
    fn grow(&mut self, bytes: usize) {
        let lines = bytes.div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
    }

    /// To read from.
    fn pointer(&self) -> Handle {
        self.0.as_ptr().cast_mut().cast()
    }

    fn pointer_mut(&mut self) -> Handle {
        self.0.as_mut_ptr().cast()
    }
}

/// What a thread needs to run products: it is made at the thread's first.
struct Worker {
    stream: Owned,
    scratch: Aligned,
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

impl Library {
    fn descriptor(
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

    fn memory(&self, descriptor: Handle, data: Handle) -> Result<Owned, OneDnnError> {
        Owned::new(
            "a matrix",
            self.functions.dnnl_memory_destroy,
            // SAFETY: the descriptor is alive; the data is only noted here.
            |out| unsafe {
                (self.functions.dnnl_memory_create)(out, descriptor, self.engine, data)
            },
        )
    }

    /// Runs a primitive on this thread.
    ///
    /// # Safety
    /// The data of all memories must be alive, as large as their descriptors say, and written by nobody else meanwhile.
    unsafe fn execute(
        &self,
        primitive: &Owned,
        scratch: Option<(&Owned, usize)>,
        given: &[(c_int, &Owned)],
    ) -> Result<(), OneDnnError> {
        WORKER.with_borrow_mut(|worker| {
            let worker = match worker {
                Some(worker) => worker,
                none => none.insert(self.worker()?),
            };
            let mut arguments = Vec::with_capacity(given.len() + 1);
            arguments.extend(given.iter().map(|(kind, memory)| Argument {
                kind: *kind,
                memory: memory.handle,
            }));
            let mut held = None;
            if let Some((descriptor, bytes)) = scratch {
                worker.scratch.grow(bytes);
                let memory = self.memory(descriptor.handle, worker.scratch.pointer_mut())?;
                arguments.push(Argument {
                    kind: ffi::ARG_SCRATCHPAD,
                    memory: memory.handle,
                });
                held = Some(memory);
            }
            // SAFETY: the caller vouches for the data; the scratch memory is this thread's own, and large enough.
            let status = unsafe {
                (self.functions.dnnl_primitive_execute)(
                    primitive.handle,
                    worker.stream.handle,
                    c_int::try_from(arguments.len()).unwrap_or(c_int::MAX),
                    arguments.as_ptr(),
                )
            };
            drop(held);
            check("a product", status)
        })
    }

    /// Keeps the library from using threads of its own: what is compiled and packed depends on their number, too.
    fn use_this_thread_alone(&self) {
        // SAFETY: it sets a number of this thread's.
        unsafe { (self.functions.omp_set_num_threads)(1) };
    }

    fn worker(&self) -> Result<Worker, OneDnnError> {
        self.use_this_thread_alone();
        let stream = Owned::new(
            "a stream",
            self.functions.dnnl_stream_destroy,
            // SAFETY: the engine lives as long as the process.
            |out| unsafe { (self.functions.dnnl_stream_create)(out, self.engine, ffi::IN_ORDER) },
        )?;
        Ok(Worker {
            stream,
            scratch: Aligned::default(),
        })
    }
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The size of a product and the formats of its operands: `dst = activation(scales * src x weights + bias)`.
///
/// `src` has shape `(rows, inner)`, the weights `(inner, columns)`, `dst` `(rows, columns)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
    /// Of `src` and the weights.
    pub(crate) format: Format,
    /// Numbers from one row of `src` to the next.
    pub(crate) src_stride: usize,
    pub(crate) dst_format: Format,
    /// Numbers from one row of `dst` to the next.
    pub(crate) dst_stride: usize,
    /// Whether each column is multiplied by a number of its own, before anything is added.
    pub(crate) has_scales: bool,
    pub(crate) has_bias: bool,
    pub(crate) activation: Option<Activation>,
}

/// How the right operand of a product lies.
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
    /// Of bias and scales.
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
            tracing::warn!(
                "oneDNN has no fast product for {shape:?} on this processor: {implementation}"
            );
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

/// What belongs to the columns of a product.
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

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.data.0.len() * size_of::<Line>()
    }
}
