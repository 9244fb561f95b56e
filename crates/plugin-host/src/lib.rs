//! WebAssembly plugins: who the caller is, what of a request changes, and who is told of it.
//!
//! A plugin is a component after `plugins/wit/v0.1`. It runs in an instance of its own for every call, within bounds of time and
//! memory, and reaches nothing but what its configuration grants. Only this crate knows wasmtime. Without plugins there
//! is no engine; without the cargo feature `wasm` there is none to be had, and a configuration that names a plugin is refused.

mod interface;
#[cfg(feature = "wasm")]
mod wasm;
#[cfg(not(feature = "wasm"))]
mod without;

pub use self::interface::{
    Headers, INIT_TIMEOUT, PluginContext, Reloaded, RequestHead, SKIPPED, Stamps, Summary, stamps,
};
#[cfg(feature = "wasm")]
pub use self::wasm::{Inspection, NotAPlugin, Plugins, harness, inspect};
#[cfg(not(feature = "wasm"))]
pub use self::without::Plugins;
