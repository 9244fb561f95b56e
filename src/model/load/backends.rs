//! The backends of a model: its replicas on each device, warmed up, and what makes one like them when it is lost.

use std::sync::{Arc, Mutex, PoisonError};

use embedgate_config::Device;
use embedgate_core::{Backend, BackendError, Replicas, TokenBatch};

use super::{LoadError, plan, system, tokenizer};
use crate::{
    batch::Reload,
    model::{
        fingerprint::{FingerprintDepth, Identity},
        loader::Loader,
        resolved::ResolvedModel,
        tokenizer::TextTokenizer,
    },
};

/// Makes backends that share weights which are in memory, where that can be.
pub(super) type Sharing = Option<Replicas>;

/// The replicas on one device, at least one.
pub(crate) struct Group {
    pub(super) device: Device,
    pub(crate) backends: Vec<Box<dyn Backend>>,
    pub(super) sharing: Sharing,
}

/// Opens the model's replicas, warmed up, on each device.
pub(crate) fn open_replicas(
    loader: &Loader<'_>,
    model: &ResolvedModel,
) -> Result<Vec<Group>, LoadError> {
    let on_device = |device| {
        let mut first = loader.open(model, device)?;
        warm_up(first.as_mut(), loader.tokenizer)?;
        let sharing = first.replicas();
        let more = reload(
            sharing.clone(),
            loader.tokenizer.clone(),
            from_files(loader, model, device),
        );
        let mut backends = vec![first];
        while backends.len() < model.replicas.get() {
            backends.push(more().map_err(LoadError::Replica)?);
        }
        Ok(Group {
            device,
            backends,
            sharing,
        })
    };
    model.backend.devices().map(on_device).collect()
}

/// Makes one more backend of the model, warmed up: as a replica, or in the place of one that was lost. With the weights in
/// memory where replicas can share them, unless they were lost too; else with those of the files, which others share then.
pub(super) fn reload(sharing: Sharing, tokenizer: TextTokenizer, of_files: Reload) -> Reload {
    let sharing = Mutex::new(sharing);
    Arc::new(move || {
        // Held until it is there: whoever comes next shares what was loaded.
        let mut sharing = sharing.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = sharing.as_ref().map(|replicas| replicas());
        match shared {
            Some(Ok(mut backend)) => {
                warm_up(backend.as_mut(), &tokenizer)?;
                return Ok(backend);
            }
            Some(Err(BackendError::Lost { .. })) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        // Not kept while others are read: there may be no memory for both.
        *sharing = None;
        let backend = of_files()?;
        *sharing = backend.replicas();
        Ok(backend)
    })
}

/// Makes a backend of the model's files, warmed up.
pub(super) fn from_files(loader: &Loader<'_>, model: &ResolvedModel, device: Device) -> Reload {
    let (name, config) = (loader.name.to_owned(), loader.config.clone());
    let (context, model) = (loader.context.clone(), model.clone());
    Arc::new(move || {
        let plan = plan(&config)?;
        let loader = Loader {
            name: &name,
            config: &config,
            plan: &plan,
            tokenizer: &tokenizer(&plan)?,
            context: &context,
        };
        let mut backend = loader.open(&model, device)?;
        warm_up(backend.as_mut(), loader.tokenizer)?;
        Ok(backend)
    })
}

/// Refuses to read files again that are others by now: their vectors would be answered, and kept, as those of the model that
/// was loaded.
pub(super) fn of_the_same_files(
    identity: Identity,
    depth: FingerprintDepth,
    loaded: blake3::Hash,
    reload: Reload,
) -> Reload {
    Arc::new(move || {
        let backend = reload()?;
        // After it was read: before, it could still change.
        let now = identity
            .at(depth)
            .map_err(system("the model's folder cannot be read"))?;
        if now != loaded {
            return Err(LoadError::Setting(format!(
                "{} has changed since the model was loaded: reload the configuration (SIGHUP) to serve what is there now",
                identity.folder().display()
            ))
            .into());
        }
        Ok(backend)
    })
}

/// The first run of a model allocates, reads weights from the disk and plans: no request should pay for that.
fn warm_up(backend: &mut dyn Backend, tokenizer: &TextTokenizer) -> Result<(), LoadError> {
    let tokens = tokenizer.encode("warm-up").map_err(LoadError::Setting)?;
    let batch: TokenBatch = std::iter::once(tokens.ids.as_slice()).collect();
    let outputs = backend.info().outputs;
    let results = backend.embed(&batch, outputs).map_err(LoadError::WarmUp)?;
    match results.is_finite() {
        true => Ok(()),
        false => Err(LoadError::NoNumbers),
    }
}
