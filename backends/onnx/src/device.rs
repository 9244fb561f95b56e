//! The devices that ONNX Runtime runs models on, and what stands between it and them.
//!
//! WebGPU comes as a plugin, a library of its own, which finds graphics cards by Vulkan, Metal or Direct3D 12. CUDA comes
//! within a build of ONNX Runtime. Both leave operations that they lack to the processor, and without a device all of them:
//! so devices are counted before a session is opened, and operations after (see the module `placement`).

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use embedgate_core::{BackendError, library::LibraryPaths};
use ort::{
    device::Device as Listed, environment::Environment, ep, memory::DeviceType,
    session::builder::SessionBuilder,
};

use crate::runtime::{self, Libraries};

/// The mend of a missing plugin, for error messages.
const HOW_TO_GET_IT: &str = "in the repository scripts/setup gpu fetches it; or install the Python package \
     onnxruntime-ep-webgpu, and point `onnxruntime.webgpu` in the config at its libonnxruntime_providers_webgpu.*";
/// The places that the plugin looks at, for error messages.
const WHERE_IT_LOOKS: &str = "it lists the graphics cards that the system does (/sys/class/drm), and asks their Vulkan \
     drivers (libvulkan.so.1): in a container both must be passed in";
/// The name by which ONNX Runtime knows the plugin's devices.
const WEBGPU: &str = "WebGpuExecutionProvider";

/// Sessions on WebGPU that are opened or run side by side end the process in a fault: one thread at a time is in the plugin.
/// Source: ONNX Runtime's issues 32561 and 27592; version 0.4.0 of the plugin has it.
static TURN: Mutex<()> = Mutex::new(());
/// The plugin's file, once it is registered.
static REGISTERED: OnceLock<PathBuf> = OnceLock::new();

/// A device that ONNX Runtime runs models on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A graphics card of any maker. The first session's card serves all.
    WebGpu,
    /// An NVIDIA card, by its number from 0.
    Cuda(usize),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::WebGpu => f.write_str("webgpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Device {
    /// The name of ONNX Runtime's provider.
    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::WebGpu => WEBGPU,
            Self::Cuda(_) => "CUDAExecutionProvider",
        }
    }

    /// Held while a session of this device is opened, run or dropped.
    pub(crate) fn turn(self) -> Option<MutexGuard<'static, ()>> {
        (self == Self::WebGpu).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a session run on the device.
    pub(crate) fn select(
        self,
        builder: SessionBuilder,
        environment: &Environment,
    ) -> ort::Result<SessionBuilder> {
        let selected = match self {
            Self::Cpu => return Ok(builder),
            Self::WebGpu => builder.with_devices(adapters(environment).take(1), None)?,
            Self::Cuda(number) => {
                let number = i32::try_from(number).unwrap_or(i32::MAX);
                // Without it f32 would have 10 bits of precision in products.
                let cuda = ep::CUDA::default().with_device_id(number).with_tf32(false);
                builder.with_execution_providers([cuda.build().error_on_failure()])?
            }
        };
        Ok(selected.with_config_entry("session.record_ep_graph_assignment_info", "1")?)
    }
}

/// A graphics card that the plugin has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Its maker and number, with the states of the plugin's file and of ONNX Runtime's: what vectors depend on.
    pub identity: String,
    /// False where a processor plays the card, which takes the environment's word
    /// `ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1`.
    pub is_hardware: bool,
}

/// Finds a graphics card for WebGPU, with the plugin, which is registered once a process.
///
/// # Errors
/// [`BackendError::MissingLibrary`] says where the plugin was looked for and how to get it, or that it finds no card.
pub fn adapter(libraries: &Libraries) -> Result<Adapter, BackendError> {
    let (environment, library) = runtime::environment(&libraries.runtime)?;
    register(environment, &libraries.webgpu)?;
    let listed = adapters(environment).next().ok_or_else(|| {
        BackendError::MissingLibrary(format!(
            "ONNX Runtime's WebGPU plugin finds no graphics card: {WHERE_IT_LOOKS}"
        ))
    })?;
    let hardware = listed.hardware_device();
    let vendor = hardware.vendor().unwrap_or("unknown maker");
    let plugin = REGISTERED.get().map(PathBuf::as_path);
    let length = |file: &Path| file.metadata().map_or(0, |file| file.len());
    let lengths: Vec<_> = plugin.into_iter().chain([library]).map(length).collect();
    Ok(Adapter {
        identity: format!("{vendor} {:#06x} {lengths:?}", hardware.id()),
        is_hardware: hardware.ty() == DeviceType::GPU,
    })
}

/// Registers the plugin from the first place that has it. Does nothing when it is registered already.
fn register(environment: &Environment, plugin: &LibraryPaths) -> Result<(), BackendError> {
    let _turn = Device::WebGpu.turn();
    if REGISTERED.get().is_some() {
        return Ok(());
    }
    let found = plugin
        .find("onnxruntime_providers_webgpu")
        .map_err(|looked| {
            let message =
                format!("ONNX Runtime's WebGPU plugin is not in {looked}: {HOW_TO_GET_IT}");
            BackendError::MissingLibrary(message)
        })?;
    let mut problems = Vec::new();
    for path in found {
        match environment.register_ep_library("webgpu", &path) {
            Ok(()) => {
                let shown = path.display();
                tracing::info!(path = %shown, "ONNX Runtime's WebGPU plugin loaded from {shown}");
                _ = REGISTERED.set(path);
                return Ok(());
            }
            Err(error) => problems.push(format!("{}: {error}", path.display())),
        }
    }
    let problems = problems.join("; ");
    Err(BackendError::MissingLibrary(format!(
        "ONNX Runtime's WebGPU plugin cannot be loaded: {problems}: {HOW_TO_GET_IT}"
    )))
}

/// Graphics cards first.
fn adapters(environment: &Environment) -> impl Iterator<Item = Listed<'_>> {
    let of_plugin = |listed: &Listed<'_>| listed.ep().is_ok_and(|name| name == WEBGPU);
    let mut found: Vec<_> = environment.devices().filter(of_plugin).collect();
    found.sort_by_key(|listed| listed.hardware_device().ty() != DeviceType::GPU);
    found.into_iter()
}
