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
    let mut problems = Vec::new();
    for path in find(candidates)? {
        match open(&path) {
            Ok(environment) => {
                tracing::info!(path = %path.display(), "ONNX Runtime loaded from {}", path.display());
                return Ok(ENVIRONMENT.get_or_init(|| environment));
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
pub(crate) fn find(candidates: &Candidates) -> Result<Vec<PathBuf>, BackendError> {
    let (found, looked) = match &candidates.named {
        Some(named) if named.is_dir() => (in_folder(named), named.display().to_string()),
        Some(named) => (
            Vec::from_iter(named.is_file().then(|| named.clone())),
            named.display().to_string(),
        ),
        None => {
            let looked: Vec<_> = candidates
                .folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            (
                candidates
                    .folders
                    .iter()
                    .flat_map(|folder| in_folder(folder))
                    .collect(),
                looked.join(", "),
            )
        }
    };
    if found.is_empty() {
        let message = format!("ONNX Runtime's library is not in {looked}: {HOW_TO_GET_IT}");
        return Err(BackendError::MissingLibrary(message));
    }
    Ok(found)
}

/// The libraries in a folder, the newest first: `libonnxruntime.so`, `libonnxruntime.so.1.32.0`,
/// `libonnxruntime.1.32.0.dylib`, `onnxruntime.dll`.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_library(path))
        .collect();
    found.sort_by_cached_key(|path| std::cmp::Reverse(version(path)));
    found
}

/// The numbers in a library's name.
fn version(path: &Path) -> Vec<u32> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
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
        assert_eq!(find(&candidates).unwrap(), std::slice::from_ref(&library));
        let older = b.path().join("libonnxruntime.so.1.9.0");
        std::fs::write(&older, "").unwrap();
        assert_eq!(find(&candidates).unwrap(), [library, older], "newest first");
    }
}
