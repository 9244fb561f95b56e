//! Finds and loads ONNX Runtime's shared library, once a process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use embedgate_core::BackendError;
use ort::{environment::Environment, logging::LogLevel};

/// The oldest release whose API this crate is built against.
pub const OLDEST: &str = "1.24";

/// What to do about a missing library, for error messages.
const HOW_TO_GET_IT: &str = "get it with scripts/setup (it fetches the pinned library), or install the Python package \
     onnxruntime and point `onnxruntime.library` in the config, or ORT_DYLIB_PATH, at its capi/libonnxruntime.so.*";

static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
/// Loading is serialized: two models that start at the same time make one environment.
static LOADING: Mutex<()> = Mutex::new(());

/// Where the library may be.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// Said by the user: a file or a folder. If there is one, no other place is tried.
    pub named: Option<PathBuf>,
    /// Folders that are searched in this order otherwise.
    pub folders: Vec<PathBuf>,
}

/// Loads the library from the first place that has it. Does nothing when a library is loaded already.
///
/// # Errors
/// [`BackendError::MissingLibrary`] says where was looked, what is wrong with what was found, and how to get it.
pub fn load(candidates: &Candidates) -> Result<(), BackendError> {
    environment(candidates).map(|_| ())
}

pub(crate) fn environment(candidates: &Candidates) -> Result<&'static Environment, BackendError> {
    let _guard = LOADING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let path = find(candidates)?;
    let environment = open(&path)?;
    tracing::info!(path = %path.display(), "ONNX Runtime loaded from {}", path.display());
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

fn open(path: &Path) -> Result<Environment, BackendError> {
    let builder = ort::init_from(path).map_err(|e| match e {
        ort::LoadDynamicError::BadVersion { version_str, .. } => BackendError::MissingLibrary(format!(
            "ONNX Runtime at {} is version {version_str}, needed is {OLDEST} or newer: {HOW_TO_GET_IT}",
            path.display()
        )),
        other => BackendError::MissingLibrary(format!("ONNX Runtime cannot be loaded: {other}: {HOW_TO_GET_IT}")),
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
    let environment = built.map_err(|e| {
        BackendError::MissingLibrary(format!("ONNX Runtime cannot be started: {e}"))
    })?;
    environment.set_log_level(LogLevel::Warning);
    Ok(environment)
}

fn find(candidates: &Candidates) -> Result<PathBuf, BackendError> {
    if let Some(named) = &candidates.named {
        let found = if named.is_dir() {
            in_folder(named)
        } else {
            named.is_file().then(|| named.clone())
        };
        return found.ok_or_else(|| {
            let where_ = named.display();
            BackendError::MissingLibrary(format!(
                "ONNX Runtime's library is not at {where_}: {HOW_TO_GET_IT}"
            ))
        });
    }
    candidates
        .folders
        .iter()
        .find_map(|folder| in_folder(folder))
        .ok_or_else(|| {
            let looked: Vec<_> = candidates
                .folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            let looked = looked.join(", ");
            BackendError::MissingLibrary(format!(
                "ONNX Runtime's library is not in {looked}: {HOW_TO_GET_IT}"
            ))
        })
}

/// The library in a folder: `libonnxruntime.so`, `libonnxruntime.so.1.32.0`, `libonnxruntime.dylib`, `onnxruntime.dll`.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| is_library(p))
        .collect();
    found.sort();
    found.pop()
}

fn is_library(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let unix =
        name.starts_with("libonnxruntime.") && (name.contains(".so") || name.ends_with(".dylib"));
    (unix || name == "onnxruntime.dll") && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_library_that_is_not_there_is_an_error_even_where_another_would_be_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libonnxruntime.so.1.32.0"), "").unwrap();
        let candidates = Candidates {
            named: Some("/nowhere/libonnxruntime.so".into()),
            folders: vec![folder.path().into()],
        };
        let error = find(&candidates).unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/libonnxruntime.so") && error.contains("scripts/setup"),
            "{error}"
        );
    }

    #[test]
    fn folders_are_searched_in_order_and_all_named_when_none_has_it() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let candidates = Candidates {
            named: None,
            folders: vec![a.path().into(), b.path().into()],
        };
        let error = find(&candidates).unwrap_err().to_string();
        assert!(
            error.contains(a.path().to_str().unwrap())
                && error.contains(b.path().to_str().unwrap()),
            "{error}"
        );
        let library = b.path().join("libonnxruntime.so.1.32.0");
        std::fs::write(&library, "").unwrap();
        std::fs::write(b.path().join("libonnxruntime_providers_shared.so"), "").unwrap();
        assert_eq!(find(&candidates).unwrap(), library);
    }
}
