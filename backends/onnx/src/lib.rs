//! Runs ONNX models of encoders with ONNX Runtime, and writes such models from an encoder's own weights.
//!
//! ONNX Runtime is loaded at run time by [`runtime::load`], once a process. [`OnnxBackend`] is the backend: it finds out
//! by name and shape what a model takes and gives, pads sequences of like length together, and pools what the model
//! leaves unpooled; of a cross-encoder it reads the scores. [`convert`] is the writer; it needs no library.

mod comparison;
pub mod convert;
mod cuda;
pub mod device;
mod external;
mod file;
mod open;
mod options;
mod padded;
mod placement;
mod private;
mod proto;
pub mod runtime;
mod session;
mod shared;
mod wiring;

pub use file::{FileChoice, check, find_model};
pub use open::bytes_overflow;
pub use options::Options;
pub use runtime::Libraries;
pub use session::OnnxBackend;
