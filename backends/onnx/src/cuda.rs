//! The needs of ONNX Runtime on NVIDIA cards: a build that has code for them, and CUDA's libraries.

use std::path::Path;

use embedgate_core::{BackendError, library::LibraryPaths};
use ort::ep::{self, ExecutionProvider as _};

use crate::runtime::{self, Libraries};

/// Fails where the loaded ONNX Runtime has no code for NVIDIA cards.
///
/// # Errors
/// [`BackendError::MissingLibrary`] says what would have it.
pub(crate) fn check_cuda(libraries: &Libraries) -> Result<(), BackendError> {
    let (_, library) = runtime::environment(&libraries.runtime)?;
    match ep::CUDA::is_available() {
        Ok(true) => Ok(()),
        _ => Err(BackendError::MissingLibrary(format!(
            "ONNX Runtime at {} has no code for CUDA: install the Python package onnxruntime-gpu, and point \
             `onnxruntime.library` in the config at its capi/libonnxruntime.so.*",
            library.display()
        ))),
    }
}

/// CUDA's libraries that its provider is linked with, in the order in which they need each other.
const CUDA_LIBRARIES: [&str; 6] = ["cudart", "nvrtc", "cublasLt", "cublas", "curand", "cufft"];

/// Loads CUDA's libraries of a folder, so that the provider finds them there. Those that are not there may be elsewhere.
///
/// # Errors
/// When a library cannot be loaded, or the folder has none of them.
pub(crate) fn preload(folder: &Path) -> Result<(), BackendError> {
    let named = |stem: &str| {
        LibraryPaths {
            named: Some(folder.to_owned()),
            folders: Vec::new(),
        }
        .find(stem)
    };
    let found: Vec<_> = CUDA_LIBRARIES.iter().flat_map(|stem| named(stem)).collect();
    if found.is_empty() {
        let names = CUDA_LIBRARIES
            .map(|stem| format!("lib{stem}.so.*"))
            .join(", ");
        return Err(BackendError::MissingLibrary(format!(
            "onnxruntime.cuda is {}, which has none of {names}",
            folder.display()
        )));
    }
    for path in found.into_iter().flat_map(|paths| paths.into_iter().next()) {
        ort::util::preload_dylib(&path).map_err(|error| {
            BackendError::MissingLibrary(format!("{} cannot be loaded: {error}", path.display()))
        })?;
    }
    Ok(())
}
