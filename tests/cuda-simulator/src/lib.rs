//! A stand-in for NVIDIA's driver library, `libcuda.so.1`, in tests on machines without a card. What is launched is the very PTX
//! that ships, run on the CPU instruction by instruction, tensor products included; every access is checked.
//!
//! It is as unhelpful as a device may be: warps run in random order between barriers, copies that were begun arrive when they are
//! waited for and no sooner, matrices that a product reads must stay as they are until it is waited for, memory that was not written holds no numbers, and all that a stream is told to do is done when
//! somebody waits for it.
//!
//! What it cannot tell: speed, and what the machine code does that NVIDIA's assembler makes of the PTX. Where machine code is loaded,
//! the PTX is run that it was made of.
//!
//! The modules in reading order: [`ptx`] reads kernels, [`launch`] runs them, with `warp`, `products` and [`memory`]; [`driver`] are
//! the library's functions, `device` is what they act on, as `settings` say, and `images` are the kernels that ship.

#![expect(
    clippy::cast_possible_truncation,
    reason = "registers hold bits, which instructions cut and extend"
)]

mod device;
pub mod driver;
mod images;
pub mod launch;
pub mod memory;
mod products;
pub mod ptx;
mod settings;
mod warp;

/// The library that cargo builds of this crate for the tests that depend on it: it lies beside them.
///
/// # Panics
/// If it is not called by a test.
#[must_use]
pub fn library() -> std::path::PathBuf {
    #[expect(
        clippy::disallowed_methods,
        reason = "cargo tells tests nothing of other libraries"
    )]
    let tests = std::env::current_exe().unwrap_or_default();
    let library = tests.with_file_name("libcuda_simulator.so");
    assert!(library.is_file(), "{} is not there", library.display());
    library
}
