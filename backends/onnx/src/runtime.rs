//! Finds and loads ONNX Runtime's shared library, once a process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use embedgate_core::{BackendError, library::LibraryPaths};
use ort::{environment::Environment, logging::LogLevel};

/// The oldest release whose API this crate is built against.
pub const OLDEST: &str = "1.24";

/// The remedy for a missing library, for error messages.
const HOW_TO_GET_IT: &str = "the package has it beside the program; in the repository scripts/setup library fetches it; \
     or install the Python package onnxruntime, and point `onnxruntime.library` in the config, or ORT_DYLIB_PATH, at its capi/libonnxruntime.so.*";

/// The places of ONNX Runtime, and of what it needs on a device.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    /// ONNX Runtime itself.
    pub runtime: LibraryPaths,
    /// Its plugin for graphics cards.
    pub webgpu: LibraryPaths,
    /// The folder of CUDA's libraries; none where the system finds them.
    pub cuda: Option<PathBuf>,
}

/// With the library's file.
static ENVIRONMENT: OnceLock<(Environment, PathBuf)> = OnceLock::new();
/// Loading is serialized: two models that start at the same time make one environment.
static LOADING: Mutex<()> = Mutex::new(());

/// Loads the library from the first place that has it. Does nothing when a library is loaded already.
///
/// # Errors
/// [`BackendError::MissingLibrary`] says where was looked, what is wrong with what was found, and how to get it.
pub fn load(candidates: &LibraryPaths) -> Result<(), BackendError> {
    environment(candidates).map(|_| ())
}

/// The environment, and the library's file.
pub(crate) fn environment(
    candidates: &LibraryPaths,
) -> Result<(&'static Environment, &'static Path), BackendError> {
    let _guard = LOADING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let parts =
        |(environment, library): &'static (Environment, PathBuf)| (environment, library.as_path());
    if let Some(loaded) = ENVIRONMENT.get() {
        return Ok(parts(loaded));
    }
    let mut problems = Vec::new();
    for path in find(candidates)? {
        match open(&path) {
            Ok(environment) => {
                tracing::info!(path = %path.display(), "ONNX Runtime loaded from {}", path.display());
                return Ok(parts(ENVIRONMENT.get_or_init(|| (environment, path))));
            }
            Err(problem) => problems.push(problem),
        }
    }
    Err(BackendError::MissingLibrary(format!(
        "{}: {HOW_TO_GET_IT}",
        problems.join("; ")
    )))
}

fn open(path: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(path).map_err(|e| match e {
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!(
                "ONNX Runtime at {} is version {version_str}, needed is {OLDEST} or newer",
                path.display()
            )
        }
        other => format!("ONNX Runtime cannot be loaded: {other}"),
    })?;
    let log = |level: LogLevel, _: &str, _: &str, _: &str, message: &str| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!("ONNX Runtime: {message}"),
        LogLevel::Warning => tracing::debug!("ONNX Runtime: {message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!("ONNX Runtime: {message}"),
    };
    let built = builder
        .with_name("embedgate")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build();
    let environment =
        built.map_err(|e| format!("ONNX Runtime at {} cannot be started: {e}", path.display()))?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

/// Every library that may be loaded, the likeliest first; at least one.
pub(crate) fn find(candidates: &LibraryPaths) -> Result<Vec<PathBuf>, BackendError> {
    candidates.find("onnxruntime").map_err(|looked| {
        let message = format!("ONNX Runtime's library is not in {looked}: {HOW_TO_GET_IT}");
        BackendError::MissingLibrary(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_said_with_where_it_was_looked_for_and_how_to_get_it() {
        let candidates = LibraryPaths {
            named: Some("/nowhere/libonnxruntime.so".into()),
            folders: Vec::new(),
        };
        let error = find(&candidates).unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/libonnxruntime.so") && error.contains("scripts/setup"),
            "{error}"
        );
    }
}
