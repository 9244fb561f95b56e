//! Matrix products by oneDNN: all that is unsafe in this crate, behind a safe face.
//!
//! [`Library`], here, is the loaded library with its objects; in the folder are [`Weights`], a matrix in the
//! layout that a product likes best, [`Right`], how a right operand lies, [`Product`], a compiled product of one size, and
//! [`Tile`], a part of a matrix that one thread writes. Every call runs on the thread that makes it: who calls spreads the
//! work.
//!
//! The reasons why it is sound: sizes and number formats of all operands are checked against the product before the
//! library sees a pointer; tiles of one matrix never overlap, which [`tiles`] alone decides; the library keeps no
//! pointer after a call (its streams on a CPU are synchronous), and its objects are immutable once made.

#![expect(
    unsafe_code,
    reason = "oneDNN is a C library, and tiles of one matrix are written by several threads"
)]

mod ffi;
mod product;
mod tile;

use std::{cell::RefCell, ffi::c_int, path::Path, ptr, sync::OnceLock};

use half::bf16;

use self::ffi::{Argument, Functions, Handle};
pub(crate) use self::{
    product::{Columns, Product, Right, Shape, Weights},
    tile::{Tile, tiles},
};

/// The failed operation within the library, and its status.
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

/// The processor's instructions for matrix products, the least first.
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
        let functions = unsafe { Functions::load(path) }.map_err(|e| {
            let reason = std::error::Error::source(&e).map(|source| format!(": {source}"));
            format!("{e}{}", reason.unwrap_or_default())
        })?;
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

    /// Returns the processor's instructions for matrix products.
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

/// The data that a thread needs to run products: they are made at the thread's first product.
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
