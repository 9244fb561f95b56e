//! Plugins for embedgate: a trait per hook, one macro that exports them, and a test host that runs guests natively.
//!
//! A plugin is a `cdylib` for `wasm32-unknown-unknown`, linked with `wasm-component-ld`:
//!
//! ```
//! use embedgate_plugin::{Authenticator, Lifecycle, Principal, Rejection, RequestHead, Settings, settings};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     password: String,
//! }
//!
//! static CONFIG: Settings<Config> = Settings::new();
//!
//! struct Password;
//!
//! impl Lifecycle for Password {
//!     fn init(text: &str) -> Result<(), String> {
//!         CONFIG.set(settings::parse(text)?)
//!     }
//! }
//!
//! impl Authenticator for Password {
//!     fn authenticate(head: RequestHead) -> Result<Option<Principal>, Rejection> {
//!         let Some(token) = head.bearer() else {
//!             return Ok(None);
//!         };
//!         if embedgate_plugin::crypto::equal(token.as_bytes(), CONFIG.get().password.as_bytes()) {
//!             return Ok(Some(Principal::new("whoever knows the word")));
//!         }
//!         Err(Rejection::unauthorized("that is not the password"))
//!     }
//! }
//!
//! embedgate_plugin::export!(Password: lifecycle, authenticator);
//! ```
//!
//! # What a guest may count on
//!
//! Each call runs in a fresh copy of the instance as it was after [`Lifecycle::init`], unless the configuration says
//! otherwise: statics that a call writes are gone after it. What must outlive a call belongs into [`kv`].
//!
//! There is no WASI below: no files, no environment, no threads, no sockets, and nothing to print to.
//! * `std::time::Instant` and `SystemTime` panic on this target: take time from [`clock`].
//! * `HashMap` works, but its `RandomState` has the same keys in every instance, so whoever knows them can choose keys
//!   that collide. Where clients choose the keys, take a `BTreeMap` or a sorted `Vec`.
//! * Whatever random state [`Lifecycle::init`] makes is equal in every later instance: take randomness from [`random`]
//!   in the call that needs it.
//! * A panic is written to [the log](mod@log) with its place, and ends the call: an authenticator's as 503, never as
//!   "allowed".
//! * The stack has 64 KiB where `.cargo/config.toml` of this repository is used: large arrays belong on the heap.

#[doc(hidden)]
pub mod bindings;
pub mod clock;
pub mod crypto;
mod edits;
mod head;
mod hooks;
pub mod http;
pub mod kv;
pub mod log;
pub mod metrics;
mod panic;
mod principal;
pub mod random;
mod rejection;
pub mod secrets;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod test;

pub use bindings::host::embedgate::plugin::types::{
    Edits, EmbedRequest, Header, InputEdit, InputKind, Inputs, Lane, Outcome, Principal, Rejection,
    Replacement, RequestHead, Summary,
};
#[doc(hidden)]
pub use hooks::Hooks;
pub use hooks::{Authenticator, Lifecycle, Observer, Preprocessor};
pub use settings::Settings;

// The host's functions: the gateway's in a component, the test host's everywhere else.
#[cfg(target_family = "wasm")]
use bindings::host::embedgate::plugin as host;
#[cfg(not(target_family = "wasm"))]
use test::imports as host;
