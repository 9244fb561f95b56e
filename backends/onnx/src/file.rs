//! Which file of a model folder is run, and what is known of it before it is loaded.

use std::path::{Path, PathBuf};

use embedgate_core::{BackendError, ModelFolder, Precision, impostor, library::Candidates};

use crate::{
    convert::{ConvertError, Files},
    external, runtime,
};

/// The ONNX file of a model folder, as the hubs lay it out: `onnx/model.onnx`, `onnx/model_int8.onnx` for int8, or either
/// beside the other files.
#[must_use]
pub fn find_model(folder: &Path, precision: Precision) -> Option<PathBuf> {
    let name = Files::of(precision)?.model;
    ["onnx", ""]
        .map(|within| folder.join(within).join(name))
        .into_iter()
        .find(|path| path.is_file())
}

/// Checks that a model's file is there, what it refers to, and that there is a library; loads neither.
///
/// # Errors
/// As [`OnnxBackend::load`](crate::OnnxBackend::load).
pub fn check(
    folder: &ModelFolder,
    file: Option<&Path>,
    precision: Precision,
    library: &Candidates,
) -> Result<(), BackendError> {
    runtime::find(library)?;
    check_file(&model_file(folder, file, precision)?, precision).map(|_| ())
}

/// The file that is named, or that of the folder.
pub(crate) fn model_file(
    folder: &ModelFolder,
    named: Option<&Path>,
    precision: Precision,
) -> Result<PathBuf, BackendError> {
    let Some(Files { model, .. }) = Files::of(precision) else {
        return Err(BackendError::Load(
            ConvertError::Precision(precision).to_string(),
        ));
    };
    let found = named.map(Path::to_owned);
    found.or_else(|| find_model(&folder.path, precision)).ok_or_else(|| {
        let shown = folder.path.display();
        BackendError::Load(format!(
            "{shown} has no onnx/{model} or {model}: write one with `embedgate convert {shown} --precision {precision}`"
        ))
    })
}

/// Checks what a file refers to, and that a model written here is configured as what it is, for that is what users are told.
/// Returns the files that it refers to.
pub(crate) fn check_file(file: &Path, configured: Precision) -> Result<Vec<PathBuf>, BackendError> {
    if let Some(problem) = impostor(file) {
        return Err(BackendError::Load(format!("{}: {problem}", file.display())));
    }
    let checked = external::check(file).map_err(BackendError::Load)?;
    match checked.precision {
        Some(stated) if stated != configured.to_string() => Err(BackendError::Load(format!(
            "{} is a model in {stated}, but is configured as {configured}: set backend.precision = \"{stated}\"",
            file.display()
        ))),
        _ => Ok(checked.files),
    }
}
