//! Finds and loads oneDNN's library, once a process.

use embedgate_core::{BackendError, library::LibraryPaths};

use crate::onednn::Library;

/// The remedy for a missing library, for error messages.
const HOW_TO_GET_IT: &str = "the package has it beside the program; in the repository scripts/setup library fetches it \
     (libgomp, which it needs, comes with gcc); or point `onednn.library` in the config at a libdnnl.so of oneDNN 3 that was built for OpenMP";

/// Loads the library from the first place that has it. Does nothing when a library is loaded already.
///
/// # Errors
/// [`BackendError::MissingLibrary`] says where was looked, what is wrong with what was found, and how to get it.
pub fn load(candidates: &LibraryPaths) -> Result<&'static Library, BackendError> {
    if let Some(library) = Library::loaded() {
        return Ok(library);
    }
    let missing =
        |message: String| BackendError::MissingLibrary(format!("{message}: {HOW_TO_GET_IT}"));
    let found = candidates
        .find("dnnl")
        .map_err(|looked| missing(format!("oneDNN's library is not in {looked}")))?;
    let mut problems = Vec::new();
    for path in found {
        match Library::load(&path) {
            Ok(library) => {
                let version = library.version();
                tracing::info!(path = %path.display(), "oneDNN {version} loaded from {}", path.display());
                return Ok(library);
            }
            Err(problem) => problems.push(problem),
        }
    }
    Err(missing(problems.join("; ")))
}
