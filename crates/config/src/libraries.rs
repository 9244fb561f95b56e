//! `[onnxruntime]`, `[onednn]` and `[cuda]`: where the libraries of backends are.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// ONNX Runtime's library.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnnxRuntimeConfig {
    /// ONNX Runtime's library: its file, or the folder it is in. Without it: `ORT_DYLIB_PATH`, else beside the program,
    /// else where `scripts/setup` put it (`.embedgate/lib`), else `/usr/local/lib/embedgate` or `/usr/lib/embedgate`.
    pub library: Option<PathBuf>,
    /// Its WebGPU plugin, for `device = "webgpu"`: its file, or the folder it is in. Without it: beside the program,
    /// else where `scripts/setup gpu` put it (`.embedgate/webgpu`), else `/usr/local/lib/embedgate` or
    /// `/usr/lib/embedgate`.
    pub webgpu: Option<PathBuf>,
    /// The folder of CUDA's libraries (cuBLAS and others), for `type = "onnx"` with `device = "cuda:0"`. Without it:
    /// where the system finds them.
    pub cuda: Option<PathBuf>,
}

/// oneDNN's library, on which the `cpu` backend runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OneDnnConfig {
    /// oneDNN's library, on which the cpu backend runs: its file, or the folder it is in. Without it: beside the
    /// program, else where `scripts/setup` put it (`.embedgate/onednn`), else `/usr/local/lib/embedgate` or
    /// `/usr/lib/embedgate`.
    pub library: Option<PathBuf>,
}

/// NVIDIA's driver, on which the `cuda` backend runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CudaConfig {
    /// NVIDIA's driver library, on which the cuda backend runs. Without it: `libcuda.so.1`, where the system finds it.
    pub library: Option<PathBuf>,
}
