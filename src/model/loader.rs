//! The values that a load has from its beginning to its end.

use embedgate_config::{Device, ModelConfig};
use embedgate_core::Backend;

use super::{
    load::{LoadError, Plan},
    load_context::LoadContext,
    placement::Placement,
    resolved::ResolvedModel,
    tokenizer::TextTokenizer,
};

/// A model that is about to be loaded: as it is configured, and as its folder says.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    /// The model's name.
    pub(crate) name: &'a str,
    /// The configuration as it is written.
    pub(crate) config: &'a ModelConfig,
    /// The facts of its folder.
    pub(crate) plan: &'a Plan,
    /// Its tokenizer.
    pub(crate) tokenizer: &'a TextTokenizer,
    /// The machine, and the rest of the configuration.
    pub(crate) context: &'a LoadContext,
}

impl Loader<'_> {
    /// Leaves nothing open of the model in a place but the number of replicas, where that is to be counted.
    ///
    /// # Errors
    /// [`LoadError`] when this machine or this build cannot run it as it is asked to.
    pub(crate) fn resolve(&self, place: &Placement) -> Result<ResolvedModel, LoadError> {
        ResolvedModel::new(self, place)
    }

    /// Loads the backend on one of the model's devices, with the modules behind it.
    ///
    /// # Errors
    /// [`LoadError`] names the file and what is wrong with it.
    pub(crate) fn open(
        &self,
        model: &ResolvedModel,
        device: Device,
    ) -> Result<Box<dyn Backend>, LoadError> {
        let backend = model.backend.engine.open(self, model, device)?;
        Ok(embedgate_modules::with_modules(backend, &self.plan.folder)?)
    }
}
