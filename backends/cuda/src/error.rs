//! Errors of the driver.

use std::path::PathBuf;

use embedgate_core::BackendError;
use thiserror::Error;

/// An error of NVIDIA's driver.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DriverError {
    /// Its library cannot be loaded.
    #[error("there is no NVIDIA driver: {} cannot be loaded ({reason})", library.display())]
    Missing {
        /// The library.
        library: PathBuf,
        /// The system's own words.
        reason: String,
    },
    /// It is older than the kernels need.
    #[error("the NVIDIA driver is for CUDA {}.{}, needed is one for CUDA 12.0 or newer", .0 / 1000, .0 % 1000 / 10)]
    Old(i32),
    /// There is no such device.
    #[error("there is no device cuda:{asked}: the driver has {available}")]
    NoDevice {
        /// Its number.
        asked: usize,
        /// The number of devices.
        available: usize,
    },
    /// A device is too old for the kernels.
    #[error(
        "{name} has compute capability {major}.{minor}, needed is 8.0 or newer (Ampere, Ada, Hopper, Blackwell)"
    )]
    OldDevice {
        /// The device's name.
        name: String,
        /// Its compute capability.
        major: i32,
        /// Its compute capability, behind the dot.
        minor: i32,
    },
    /// All that was on the device was ended after a fault.
    #[error("the device was reset after a fault")]
    Reset,
    /// No variant of a kernel gives right results.
    #[error("no variant of the kernel {kernel} gives right results on {device}: {reason}")]
    Wrong {
        /// The kernel.
        kernel: String,
        /// The device's name.
        device: String,
        /// The result of the last variant.
        reason: String,
    },
    /// A call failed.
    #[error("{call} failed: {name} ({code})")]
    Failed {
        /// The driver's function.
        call: &'static str,
        /// The driver's number of the error.
        code: i32,
        /// The driver's name of the error.
        name: String,
    },
}

impl DriverError {
    /// True if the device's memory is full.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                code: code::OUT_OF_MEMORY,
                ..
            }
        )
    }

    /// True if all that is on the device is lost: after a fault nothing works there before it is reset.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Reset => true,
            Self::Failed { code, .. } => code::LASTING.contains(code),
            _ => false,
        }
    }

    /// True if there is a driver and no device.
    #[must_use]
    pub fn is_no_device(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                code: code::NO_DEVICE,
                ..
            } | Self::NoDevice { .. }
        )
    }

    /// The error of a batch that failed. After a fault all that is on the device has to be loaded again.
    pub(crate) fn of_batch(self) -> BackendError {
        match self.is_lasting() {
            true => BackendError::Lost {
                what: "the forward pass failed",
                source: self.into(),
            },
            false => BackendError::inference("the forward pass failed", self),
        }
    }
}

/// `CUresult`, as far as it is told apart.
mod code {
    pub(super) const OUT_OF_MEMORY: i32 = 2;
    pub(super) const NO_DEVICE: i32 = 100;
    /// After these nothing works in the context any more: an uncorrectable memory error, a fault of NVLink, an illegal address, a timeout,
    /// a context that was ended, an assertion, faults of hardware, instructions and addresses, a failed launch, what is not known.
    pub(super) const LASTING: [i32; 13] = [
        214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999,
    ];
}
