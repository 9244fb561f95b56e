//! `models.NAME.backend`: the backend that runs a model, and its device.

mod check;
mod written;

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use self::written::Written;
use super::{Device, DeviceChoice, PrecisionChoice};

/// The backend that runs a model, and its device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct BackendConfig {
    /// `cpu` runs the model's own weights on the processor, `cuda` on an NVIDIA card, `candle` in Rust alone, `onnx` its ONNX
    /// variant (see `embedgate convert`).
    pub kind: BackendType,
    /// The device that runs the model: `cpu`; a card, such as `cuda:0`, with `cuda` or `onnx`; `webgpu`, any graphics
    /// card, with `onnx`; or `auto`, the first of those that can run it. The device chooses the type, where none is
    /// stated.
    pub device: DeviceChoice,
    /// Cards that replicas run on, such as `["cuda:0", "cuda:1"]`, each with as many as `replicas` says, behind one queue.
    pub devices: Vec<Device>,
    /// Number format of matrix products: `f32`; with `cpu` also `bf16`, `int8`, or `auto`, which is the fastest that
    /// keeps cosines of 0.9999; with `onnx` also `int8` on the processor, and `f16` on cards, models of their own (`embedgate
    /// convert`); with `cuda` `f16`, which `auto` is there, or `bf16`.
    pub precision: PrecisionChoice,
    /// Threads of a matrix product. None means one a physical core, shared among the replicas.
    pub threads: Option<usize>,
    /// True when each thread stays on a core of its own, with `cpu`. None means true only where the threads of all
    /// replicas are as many as the physical cores that this process may use, without a quota below them.
    pub pin_threads: Option<bool>,
    /// The ONNX file. None means `onnx/model.onnx` or `model.onnx` in the model's folder, `model_int8.onnx` for int8; on cards
    /// `model_gpu.onnx` and `model_gpu_f16.onnx` come first.
    pub file: Option<PathBuf>,
}

impl BackendConfig {
    /// Returns a copy for one device, with the type that runs there. The precision is the stated one, or else the usual
    /// one of the type; settings of other types are removed.
    #[must_use]
    pub fn at(&self, kind: BackendType, device: Device, said: Option<PrecisionChoice>) -> Self {
        Self {
            kind,
            device: DeviceChoice::At(device),
            devices: Vec::new(),
            precision: said.unwrap_or(kind.usual_precision()),
            threads: self.threads.filter(|_| device == Device::Cpu),
            pin_threads: self.pin_threads.filter(|_| kind == BackendType::Cpu),
            file: self.file.clone().filter(|_| kind == BackendType::Onnx),
        }
    }

    /// The one device that was said; the processor where it is open, which configurations that were resolved do not leave.
    #[must_use]
    pub fn one_device(&self) -> Device {
        match self.device {
            DeviceChoice::At(device) => device,
            DeviceChoice::Auto(_) => Device::Cpu,
        }
    }

    /// The devices that replicas run on: those that were said, or the one.
    #[must_use]
    pub fn all_devices(&self) -> Vec<Device> {
        match self.devices.is_empty() {
            true => vec![self.one_device()],
            false => self.devices.clone(),
        }
    }

    /// Returns true when it runs on anything but the processor.
    pub(super) fn is_on_card(&self) -> bool {
        self.all_devices() != [Device::Cpu]
    }
}

/// The backends of this program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendType {
    /// The model's own weights, on oneDNN; on candle where there is no oneDNN.
    #[default]
    Cpu,
    /// The model's own weights, with candle.
    Candle,
    /// An ONNX model, with ONNX Runtime.
    Onnx,
    /// The model's own weights, on an NVIDIA card, with kernels of embedgate's own.
    Cuda,
}

impl fmt::Display for BackendType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Candle => "candle",
            Self::Onnx => "onnx",
            Self::Cuda => "cuda",
        })
    }
}

impl BackendType {
    /// The precisions that it has on a device.
    #[must_use]
    pub fn precisions(self, device: Device) -> &'static [PrecisionChoice] {
        use PrecisionChoice::{Auto, Bf16, F16, F32, Int8};
        match (self, device) {
            (Self::Cuda, _) => &[Auto, F16, Bf16],
            (Self::Cpu, _) => &[Auto, F32, Bf16, Int8],
            (Self::Candle, Device::Cpu) => &[Auto, F32],
            (Self::Candle, _) => &[Auto, F32, F16, Bf16],
            (Self::Onnx, Device::Cpu) => &[Auto, F32, Int8],
            (Self::Onnx, _) => &[Auto, F32, F16],
        }
    }

    /// The type that no type means, by the device.
    fn usual(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) => Self::Cuda,
            Device::WebGpu => Self::Onnx,
        }
    }

    /// The precision that none means.
    fn usual_precision(self) -> PrecisionChoice {
        match self {
            Self::Cuda => PrecisionChoice::F16,
            Self::Cpu | Self::Candle | Self::Onnx => PrecisionChoice::F32,
        }
    }
}
