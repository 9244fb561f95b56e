//! The loaded library: oneDNN's file, its engine, and what it says of the processor.

use std::{ffi::c_int, path::Path, ptr, sync::OnceLock};

use super::{
    ffi::{self, Functions, Handle},
    object::check,
};

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
    pub(super) functions: Functions,
    pub(super) engine: Handle,
    pub(super) instructions: Instructions,
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

    /// Keeps the library from using threads of its own: what is compiled and packed depends on their number, too.
    pub(super) fn use_this_thread_alone(&self) {
        // SAFETY: it sets a number of this thread's.
        unsafe { (self.functions.omp_set_num_threads)(1) };
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
