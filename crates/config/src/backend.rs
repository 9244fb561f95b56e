//! `models.NAME.backend`: the backend that runs a model, and its device.

mod check;
mod table;
mod written;

use std::{fmt, path::PathBuf};

use embedgate_core::Precision;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{table::Open, written::Written};
use super::{Device, DeviceChoice, PrecisionChoice};

/// The backend that runs a model, and its device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Written", into = "Written")]
pub struct BackendConfig {
    /// The backend; where none was written, the one that the device chooses.
    pub kind: BackendType,
    /// The device; where none was written, the usual one of the type.
    pub device: DeviceChoice,
    /// The cards that replicas run on, where several were written.
    pub devices: Vec<Device>,
    /// The precision; where none was written, the usual one of the type.
    pub precision: PrecisionChoice,
    /// Threads of a matrix product; none where they are as many as the physical cores, shared among the replicas.
    pub threads: Option<usize>,
    /// True when each thread stays on a core of its own; none where that depends on the machine.
    pub pin_threads: Option<bool>,
    /// The ONNX file; none for the folder's own.
    pub file: Option<PathBuf>,
}

impl BackendConfig {
    /// The devices that replicas run on: those that were said, or the one; the processor where that is open.
    pub(super) fn all_devices(&self) -> Vec<Device> {
        match (self.devices.is_empty(), self.device) {
            (false, _) => self.devices.clone(),
            (true, DeviceChoice::At(device)) => vec![device],
            (true, DeviceChoice::Auto(_)) => vec![Device::Cpu],
        }
    }

    /// Returns true when it runs on anything but the processor.
    pub(super) fn is_on_card(&self) -> bool {
        self.all_devices() != [Device::Cpu]
    }
}

/// The backends of this program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        f.write_str(self.facts().name)
    }
}

impl BackendType {
    /// The precisions that it has on a device.
    #[must_use]
    pub fn precisions(self, device: Device) -> &'static [PrecisionChoice] {
        (self.facts().precisions)(device)
    }

    /// Returns true when it has a precision on a device.
    #[must_use]
    pub fn has(self, precision: Precision, device: Device) -> bool {
        self.precisions(device).contains(&precision.into())
    }

    /// The precision that none means.
    #[must_use]
    pub fn usual_precision(self) -> Precision {
        self.facts().usual_precision
    }

    /// Returns true when `device = "auto"` may choose the processor.
    #[must_use]
    pub fn has_processor(self) -> bool {
        self.facts().open != Open::Cards
    }

    /// Returns true when it takes a file of its own in the place of the folder's weights.
    #[must_use]
    pub fn takes_file(self) -> bool {
        self.facts().refusals.file.is_none()
    }

    /// Returns true when it can keep its threads on cores.
    #[must_use]
    pub fn pins_threads(self) -> bool {
        self.facts().refusals.pin_threads.is_none()
    }

    /// Says why it refuses `max_memory`; none where it does not.
    pub(super) fn refuses_max_memory(self) -> Option<&'static str> {
        self.facts().refusals.max_memory
    }
}
