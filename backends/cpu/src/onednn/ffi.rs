//! oneDNN's C functions, as far as they are needed, found in a library that is loaded at run time.
//!
//! Source: oneDNN 3.2, `include/oneapi/dnnl/dnnl.h` and `dnnl_types.h`.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    path::Path,
};

/// Any of oneDNN's objects.
pub(super) type Handle = *mut c_void;

/// `dnnl_exec_arg_t`.
#[repr(C)]
pub(super) struct Argument {
    pub(super) kind: c_int,
    pub(super) memory: Handle,
}

/// `dnnl_version_t`, as far as it is read.
#[repr(C)]
pub(super) struct Version {
    pub(super) major: c_int,
    pub(super) minor: c_int,
    pub(super) patch: c_int,
}

pub(super) const CPU: c_int = 1;
pub(super) const IN_ORDER: c_uint = 1;
pub(super) const SCRATCHPAD_USER: c_int = 1;

pub(super) const TAG_ANY: c_int = 1;

pub(super) const ARG_SRC: c_int = 1;
pub(super) const ARG_DST: c_int = 17;
pub(super) const ARG_WEIGHTS: c_int = 33;
pub(super) const ARG_BIAS: c_int = 41;
pub(super) const ARG_SCRATCHPAD: c_int = 80;
pub(super) const ARG_ATTR_SCALES: c_int = 4096;

pub(super) const QUERY_IMPLEMENTATION: c_int = 8;
pub(super) const QUERY_WEIGHTS: c_int = 131;
pub(super) const QUERY_SCRATCHPAD: c_int = 136;

pub(super) const RELU: c_int = 0x20;
pub(super) const TANH: c_int = 0x21;
pub(super) const SWISH: c_int = 0x2c;
pub(super) const GELU_TANH: c_int = 0x2b;
pub(super) const GELU_ERF: c_int = 0x31;

macro_rules! functions {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => {
        /// The functions of a loaded library, which stays loaded for as long as the process lives.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($type),*) -> $result,)*
        }

        impl Functions {
            /// Loads a library.
            ///
            /// # Safety
            /// The file must be oneDNN's library: loading it runs its own code, and its functions must have the types
            /// that are given here.
            pub(super) unsafe fn load(path: &Path) -> Result<Self, libloading::Error> {
                // Leaked: threads of its runtime may outlive any owner.
                let open = |path: &Path| -> Result<&'static libloading::Library, libloading::Error> {
                    Ok(Box::leak(Box::new(unsafe { libloading::Library::new(path)? })))
                };
                // The library of OpenMP that lies beside it, as in the package: then the system need not have one.
                let openmp = path.with_file_name("libgomp.so.1");
                if openmp.is_file() {
                    open(&openmp)?;
                }
                let library = open(path)?;
                Ok(Self {
                    $($name: *unsafe { library.get(stringify!($name).as_bytes())? },)*
                })
            }
        }
    };
}

functions! {
    dnnl_version() -> *const Version;
    dnnl_get_effective_cpu_isa() -> c_int;
    dnnl_engine_create(*mut Handle, c_int, usize) -> c_int;
    dnnl_stream_create(*mut Handle, Handle, c_uint) -> c_int;
    dnnl_stream_destroy(Handle) -> c_int;
    dnnl_memory_desc_create_with_tag(*mut Handle, c_int, *const i64, c_int, c_int) -> c_int;
    dnnl_memory_desc_create_with_strides(*mut Handle, c_int, *const i64, c_int, *const i64) -> c_int;
    dnnl_memory_desc_clone(*mut Handle, Handle) -> c_int;
    dnnl_memory_desc_equal(Handle, Handle) -> c_int;
    dnnl_memory_desc_get_size(Handle) -> usize;
    dnnl_memory_desc_destroy(Handle) -> c_int;
    dnnl_memory_create(*mut Handle, Handle, Handle, Handle) -> c_int;
    dnnl_memory_destroy(Handle) -> c_int;
    dnnl_primitive_attr_create(*mut Handle) -> c_int;
    dnnl_primitive_attr_destroy(Handle) -> c_int;
    dnnl_primitive_attr_set_scratchpad_mode(Handle, c_int) -> c_int;
    dnnl_primitive_attr_set_scales_mask(Handle, c_int, c_int) -> c_int;
    dnnl_primitive_attr_set_post_ops(Handle, Handle) -> c_int;
    dnnl_post_ops_create(*mut Handle) -> c_int;
    dnnl_post_ops_destroy(Handle) -> c_int;
    dnnl_post_ops_append_eltwise(Handle, c_int, f32, f32) -> c_int;
    dnnl_matmul_primitive_desc_create(*mut Handle, Handle, Handle, Handle, Handle, Handle, Handle) -> c_int;
    dnnl_reorder_primitive_desc_create(*mut Handle, Handle, Handle, Handle, Handle, Handle) -> c_int;
    dnnl_primitive_desc_query(Handle, c_int, c_int, *mut c_void) -> c_int;
    dnnl_primitive_desc_query_md(Handle, c_int, c_int) -> Handle;
    dnnl_primitive_desc_destroy(Handle) -> c_int;
    dnnl_primitive_create(*mut Handle, Handle) -> c_int;
    dnnl_primitive_execute(Handle, Handle, c_int, *const Argument) -> c_int;
    dnnl_primitive_destroy(Handle) -> c_int;
    omp_set_num_threads(c_int) -> ();
}

/// The name of an implementation, as a primitive descriptor tells it.
pub(super) type Name = *const c_char;
