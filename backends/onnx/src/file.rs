//! Which file of a model folder is run, and what is known of it before it is loaded.

use std::path::{Path, PathBuf};

use embedgate_core::{BackendError, ModelFolder, Precision, impostor};

use crate::{
    convert::{ConvertError, Files, Target, Variant},
    cuda::check_cuda,
    device::{Device, adapter},
    external,
    runtime::{self, Libraries},
};

/// The name of a model in f16 on the hubs, as optimum exports it.
const HUB_F16: &str = "model_fp16.onnx";

/// The ONNX file of a model folder for a device and a precision: in `onnx/`, or beside the other files. For a GPU one that was
/// written for it, else the one for the processor.
#[must_use]
pub fn find_model(folder: &Path, device: Device, precision: Precision) -> Option<PathBuf> {
    let names = names(device, precision);
    let places = names
        .iter()
        .flat_map(|name| ["onnx", ""].map(|within| folder.join(within).join(name)));
    places.into_iter().find(|path| path.is_file())
}

/// The files that are looked for, the best first.
fn names(device: Device, precision: Precision) -> Vec<&'static str> {
    let targets: &[Target] = match device {
        Device::Cpu => &[Target::Cpu],
        // What is packed for CUDA has never run on a card: it is run only where it is named.
        Device::WebGpu | Device::Cuda(_) => &[Target::Gpu, Target::Cpu],
    };
    let files = targets
        .iter()
        .filter_map(|&target| Files::of(Variant { target, precision }));
    let hub = (device != Device::Cpu && precision == Precision::F16).then_some(HUB_F16);
    files.map(|files| files.model).chain(hub).collect()
}

/// The facts by which the file of a model is chosen.
#[derive(Clone, Copy, Debug)]
pub struct FileChoice<'a> {
    /// The file, where it is named.
    pub named: Option<&'a Path>,
    /// The device that runs the model.
    pub device: Device,
    /// The number format of the file.
    pub precision: Precision,
}

/// Checks that a model's file is there, what it refers to, and that there is a library, and a device where it needs one;
/// loads no model.
///
/// # Errors
/// As [`OnnxBackend::load`](crate::OnnxBackend::load).
pub fn check(
    folder: &ModelFolder,
    choice: FileChoice<'_>,
    libraries: &Libraries,
) -> Result<(), BackendError> {
    runtime::find(&libraries.runtime)?;
    match choice.device {
        Device::Cpu => {}
        Device::WebGpu => _ = adapter(libraries)?,
        Device::Cuda(_) => check_cuda(libraries)?,
    }
    check_file(&model_file(folder, choice)?, choice.precision).map(|_| ())
}

/// The file that is named, or that of the folder.
pub(crate) fn model_file(
    folder: &ModelFolder,
    choice: FileChoice<'_>,
) -> Result<PathBuf, BackendError> {
    let FileChoice {
        named,
        device,
        precision,
    } = choice;
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let names = names(device, precision);
    if names.is_empty() {
        let target = match device {
            Device::Cpu => Target::Cpu,
            Device::WebGpu | Device::Cuda(_) => Target::Gpu,
        };
        let variant = Variant { target, precision };
        let error = ConvertError::Variant(variant).to_string();
        return Err(BackendError::Load(error));
    }
    find_model(&folder.path, device, precision).ok_or_else(|| {
        let shown = folder.path.display();
        let for_gpu = if device == Device::Cpu { "" } else { " --for gpu" };
        BackendError::Load(format!(
            "{shown} has no {}, neither in onnx/ nor beside its config.json: write one with `embedgate convert {shown}{for_gpu} \
             --precision {precision}`",
            names.join(" or ")
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
