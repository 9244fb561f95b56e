//! The place that a model is asked to run in: a type of backend and its devices. The precision may still be open.

use std::path::PathBuf;

use embedgate_config::{BackendConfig, BackendType, Device, PrecisionChoice};
#[cfg(all(feature = "onnx", any(feature = "candle", feature = "cpu")))]
use embedgate_core::Precision;

/// A type of backend on devices, as the configuration asks for it or leaves it open.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The type, which may give way to another where a library is missing.
    pub(crate) kind: BackendType,
    /// The device, or the first of them.
    pub(crate) device: Device,
    /// The others.
    pub(crate) more_devices: Vec<Device>,
    /// The precision, which may be `auto`.
    pub(crate) precision: PrecisionChoice,
    /// The settings of threads.
    pub(crate) threads: ThreadSettings,
    /// The file to run.
    pub(crate) file: Option<PathBuf>,
}

/// The stated settings of threads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThreadSettings {
    /// Threads of each replica. None: the replicas share all threads.
    pub(crate) each: Option<usize>,
    /// True when threads stay on cores. None: true where the threads fill the machine.
    #[cfg(feature = "cpu")]
    pub(crate) are_pinned: Option<bool>,
}

impl Placement {
    /// A place on the processor, with nothing said of threads.
    #[cfg(all(feature = "onnx", any(feature = "candle", feature = "cpu")))]
    pub(crate) fn on_processor(kind: BackendType, precision: Precision) -> Self {
        Self {
            kind,
            device: Device::Cpu,
            more_devices: Vec::new(),
            precision: precision.into(),
            threads: ThreadSettings::default(),
            file: None,
        }
    }

    /// The place that the configuration names: `device` is the first of its devices.
    pub(super) fn stated(backend: &BackendConfig, device: Device) -> Self {
        Self {
            kind: backend.kind,
            device,
            more_devices: backend.devices.iter().skip(1).copied().collect(),
            precision: backend.precision,
            threads: ThreadSettings {
                // A card has threads of its own.
                each: backend.threads.filter(|_| device == Device::Cpu),
                #[cfg(feature = "cpu")]
                are_pinned: backend.pin_threads,
            },
            file: backend.file.clone(),
        }
    }

    /// All devices.
    pub(super) fn devices(&self) -> impl Iterator<Item = Device> + '_ {
        std::iter::once(self.device).chain(self.more_devices.iter().copied())
    }

    /// A place that the configuration leaves open, with the type that runs there. The precision is the stated one, or else the
    /// usual one of the type; settings of other types are removed.
    pub(super) fn on(self, kind: BackendType, said: Option<PrecisionChoice>) -> Self {
        Self {
            kind,
            precision: said.unwrap_or(kind.usual_precision().into()),
            threads: ThreadSettings {
                #[cfg(feature = "cpu")]
                are_pinned: self.threads.are_pinned.filter(|_| kind.pins_threads()),
                ..self.threads
            },
            file: self.file.filter(|_| kind.takes_file()),
            ..self
        }
    }
}
