//! Models without files, for tests.

use std::num::NonZeroUsize;

use embedgate_config::Device;
use embedgate_core::Precision;

use super::{ResolvedBackend, ResolvedModel};
use crate::model::{engine, placement::ThreadSettings};

impl ResolvedModel {
    /// Makes a model without a folder, with one replica of one thread.
    pub(crate) fn of_nothing() -> Self {
        Self {
            backend: ResolvedBackend::of_nothing(),
            replicas: NonZeroUsize::MIN,
            threads: 1,
            #[cfg(feature = "cpu")]
            cores: Vec::new(),
            max_batch_tokens: None,
            max_memory: None,
            stated_threads: ThreadSettings::default(),
        }
    }
}

impl ResolvedBackend {
    /// Makes the first backend that is built, on the processor in f32.
    pub(crate) fn of_nothing() -> Self {
        Self {
            engine: engine::all().next().expect("each build has a backend"),
            device: Device::Cpu,
            more_devices: Vec::new(),
            precision: Precision::F32,
            file: None,
        }
    }
}
