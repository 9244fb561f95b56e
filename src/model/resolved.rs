//! A model's configuration with nothing left open: the backend that runs it on this machine, and how.

#[cfg(test)]
mod samples;

use std::{num::NonZeroUsize, path::PathBuf};

use embedgate_config::{ByteSize, Device};
use embedgate_core::Precision;
#[cfg(feature = "cpu")]
use embedgate_core::machine::cores::Core;

use super::{
    engine::{self, Engine},
    load::LoadError,
    load_context::LoadContext,
    loader::Loader,
    placement::{Placement, ThreadSettings},
};

/// A model as it runs on this machine.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedModel {
    /// The backend, its devices and its precision.
    pub(crate) backend: ResolvedBackend,
    /// Replicas on each device.
    pub(crate) replicas: NonZeroUsize,
    /// Threads of each replica.
    pub(crate) threads: usize,
    /// The cores that the threads of all replicas stay on; none where the system chooses.
    #[cfg(feature = "cpu")]
    pub(crate) cores: Vec<Core>,
    /// Most tokens in a batch. None means what is measured once the model is loaded.
    pub(crate) max_batch_tokens: Option<usize>,
    /// The model's own limit of memory, where it has one.
    pub(crate) max_memory: Option<ByteSize>,
    /// The stated settings of threads, from which another number of replicas gets its own.
    pub(super) stated_threads: ThreadSettings,
}

impl ResolvedModel {
    /// Chooses the backend and the precision of a model in its place. It has one replica where they are not counted yet.
    ///
    /// # Errors
    /// [`LoadError::Backend`] when the library is missing without which the model cannot run as it is asked to,
    /// [`LoadError::Setting`] when this processor, or this build, cannot run it so.
    pub(super) fn new(loader: &Loader<'_>, place: &Placement) -> Result<Self, LoadError> {
        let (engine, precision) = engine::resolve(loader.name, place, loader.context)?;
        let backend = ResolvedBackend {
            engine,
            device: place.device,
            more_devices: place.more_devices.clone(),
            precision,
            file: place.file.clone(),
        };
        let one = Self {
            backend,
            replicas: NonZeroUsize::MIN,
            threads: 1,
            #[cfg(feature = "cpu")]
            cores: Vec::new(),
            max_batch_tokens: loader.config.max_batch_tokens,
            max_memory: loader.config.max_memory,
            stated_threads: place.threads,
        };
        let stated = NonZeroUsize::new(loader.config.replicas.get());
        Ok(one.with_replicas(stated.unwrap_or(NonZeroUsize::MIN), loader.context))
    }

    /// Returns the same model with another number of replicas, and the threads that each has then.
    pub(super) fn with_replicas(&self, replicas: NonZeroUsize, context: &LoadContext) -> Self {
        let threads = context.threads(self.stated_threads, replicas);
        Self {
            replicas,
            threads,
            #[cfg(feature = "cpu")]
            cores: context.cores(self.stated_threads, threads * replicas.get()),
            ..self.clone()
        }
    }
}

/// The backend that runs a model, with its devices.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedBackend {
    /// The backend.
    pub(crate) engine: &'static dyn Engine,
    /// The device, or the first of them.
    pub(crate) device: Device,
    /// The others, of the same kind.
    pub(crate) more_devices: Vec<Device>,
    /// The number format of matrix products.
    pub(crate) precision: Precision,
    /// The file that is run, where the configuration names one.
    pub(crate) file: Option<PathBuf>,
}

impl ResolvedBackend {
    /// All devices, each of which has its own replicas.
    pub(crate) fn devices(&self) -> impl Iterator<Item = Device> + '_ {
        std::iter::once(self.device).chain(self.more_devices.iter().copied())
    }

    /// Returns true when it runs in the machine's own memory.
    pub(crate) fn is_on_processor(&self) -> bool {
        self.device == Device::Cpu
    }
}
