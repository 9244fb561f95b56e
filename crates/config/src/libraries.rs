//! `[onnxruntime]`, `[onednn]` and `[cuda]`: where the libraries of backends are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// ONNX Runtime's library.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnnxRuntimeConfig {
    /// The library's file, or the folder it is in. None means `ORT_DYLIB_PATH`, else beside the program, else where
    /// `scripts/setup` put it.
    pub library: Option<PathBuf>,
    /// The file of its WebGPU plugin, or the folder it is in. None means beside the program, else where `scripts/setup gpu`
    /// put it.
    pub webgpu: Option<PathBuf>,
    /// The folder of CUDA's libraries (cuBLAS and others), with device `cuda:N`. None means that the system finds them.
    pub cuda: Option<PathBuf>,
}

/// oneDNN's library, on which the `cpu` backend runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneDnnConfig {
    /// The library's file, or the folder it is in. None means beside the program, else where `scripts/setup` put it.
    pub library: Option<PathBuf>,
}

/// NVIDIA's driver, on which the `cuda` backend runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaConfig {
    /// The driver's library. None means `libcuda.so.1`, where the system finds it.
    pub library: Option<PathBuf>,
}
