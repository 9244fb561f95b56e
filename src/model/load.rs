//! Loads a configured model: folder, tokenizer, backend, warm-up.

mod backends;
mod budget;
mod error;
mod plan;

use std::{io, sync::Arc, time::Instant};

use embedgate_config::ModelConfig;
use embedgate_core::{BackendInfo, ModelFolder};
use embedgate_metrics::Metrics;

pub(super) use self::backends::{Group, open_replicas};
use self::{
    backends::{from_files, of_the_same_files, reload},
    budget::{budget, bulk_capacity},
    error::system,
    plan::check_vocabulary,
};
pub(crate) use self::{
    error::LoadError,
    plan::{Plan, plan, to_fetch, tokenizer},
};
use super::{
    Files, Model, calibrate,
    devices::{self, Skipped},
    fingerprint::{FingerprintDepth, Identity},
    load_context::LoadContext,
    loader::Loader,
    memory, pins,
    placement::Placement,
    resolved::ResolvedModel,
    token_ratio::TokenRatio,
    tokenizer::{TextTokenizer, TokenizerPool},
    usage::LastUse,
};
use crate::batch::{self, Batcher, BatcherConfig};

/// Opens all that a model needs, but reads no weights: its tokenizer, its weights' directory or its ONNX file, the library, a
/// device where it needs one. Says which devices are not taken, where the configuration leaves that open.
///
/// # Errors
/// [`LoadError`] names the file and what is wrong with it.
pub(crate) fn inspect(
    name: &str,
    config: &ModelConfig,
    context: &LoadContext,
) -> Result<Inspected, LoadError> {
    let plan = plan(config)?;
    pins::check(config)?;
    warn_of_variants(config, &plan.folder);
    let tokenizer = tokenizer(&plan)?;
    check_vocabulary(&tokenizer, &plan)?;
    let loader = Loader {
        name,
        config,
        plan: &plan,
        tokenizer: &tokenizer,
        context,
    };
    let model = place(&loader)?;
    embedgate_modules::inspect(&plan.folder)?;
    Ok(Inspected {
        model,
        plan,
        tokenizer,
    })
}

/// Says where queries, or tasks, of a folder with several models are served by one that is not for them.
fn warn_of_variants(config: &ModelConfig, folder: &ModelFolder) {
    let path = config.path.display();
    let has_queries = folder.routes.iter().any(|route| route == "query");
    if has_queries && folder.route.as_deref() != Some("query") && config.query_model.is_none() {
        tracing::warn!(
            "{path} has a route for queries, and the model serves them by another: name a model with route = \"query\" as its query_model"
        );
    }
    if let Some(adapters) = &folder.encoder.adapters
        && adapters.applied.is_none()
    {
        let tasks = adapters.tasks.join(", ");
        tracing::warn!(
            "{path} has adapters, of which none is applied: choose one with the model's key adapter: {tasks}"
        );
    }
}

/// A model that could be loaded.
pub(crate) struct Inspected {
    pub(crate) model: ResolvedModel,
    pub(crate) plan: Plan,
    pub(crate) tokenizer: TextTokenizer,
}

/// The model with nothing left open but a number of replicas that is to be counted, on the first device that takes it.
///
/// # Errors
/// [`LoadError`] says what is missing for the last of the devices.
pub(crate) fn place(loader: &Loader<'_>) -> Result<ResolvedModel, LoadError> {
    let inspected = |place: &Placement| {
        let model = loader.resolve(place)?;
        memory::check(&model, loader.plan)?;
        let backend = &model.backend;
        backend
            .engine
            .inspect(loader.plan, backend, loader.context)?;
        Ok(model)
    };
    first_that_works(loader, inspected).map(|(model, _)| model)
}

/// Tries the devices that a model may run on in their order. Returns what the first gives that works, and the others before it.
fn first_that_works<T>(
    loader: &Loader<'_>,
    attempt: impl Fn(&Placement) -> Result<T, LoadError>,
) -> Result<(T, Vec<Skipped>), LoadError> {
    let mut options = devices::options(loader.config, loader.context)
        .into_iter()
        .peekable();
    let mut skipped = Vec::new();
    while let Some(option) = options.next() {
        let device = option.device.clone();
        let tried = option
            .take(loader.context)
            .map_err(LoadError::Setting)
            .and_then(|place| attempt(&place));
        match tried {
            Ok(it) => return Ok((it, skipped)),
            Err(error) if options.peek().is_none() => return Err(error),
            Err(error) => skipped.push(Skipped::new(loader.name, &device, error.to_string())),
        }
    }
    Err(LoadError::Setting("no device can run the model".into()))
}

/// Finds room in memory for so many bytes, or says why there is none.
pub(crate) type Room<'a> = &'a (dyn Fn(u64) -> Result<(), String> + 'a);

/// The inputs of a load, in addition to the model's own configuration.
#[derive(Clone, Copy)]
pub(crate) struct Loading<'a> {
    pub(crate) context: &'a LoadContext,
    pub(crate) metrics: &'a Metrics,
    pub(crate) room: Room<'a>,
}

/// Loads a model and runs a warm-up batch. Blocks; must be called within a tokio runtime.
///
/// # Errors
/// [`LoadError`] names the file and what is wrong with it.
pub(crate) fn load(
    name: &str,
    config: &ModelConfig,
    loading: Loading<'_>,
) -> Result<Model, LoadError> {
    let path = config.path.display();
    tracing::info!(model.name = name, %path, "loading model {name} from {path}");
    let plan = plan(config)?;
    pins::check(config)?;
    // Said here and not where it is chosen: a plan is made more than once, a model loaded once.
    let is_pooled = !plan.folder.is_cross_encoder && !plan.folder.is_sparse_alone();
    if is_pooled && config.pooling.is_none() && plan.folder.pooling.is_none() {
        let taken = plan.pooling;
        tracing::warn!(
            "{path} does not say how to pool: taking {taken}; say it with the model's key \"pooling\""
        );
    }
    if is_pooled
        && !plan.folder.is_stated
        && plan.folder.pooling.is_some()
        && config.normalize.is_none()
    {
        tracing::warn!(
            "{path} has no modules.json: vectors get length 1, and no module follows the pooling; download the file, or say it with the \
             model's key \"normalize\""
        );
    }
    let tokenizer = tokenizer(&plan)?;
    check_vocabulary(&tokenizer, &plan)?;
    let loader = Loader {
        name,
        config,
        plan: &plan,
        tokenizer: &tokenizer,
        context: loading.context,
    };
    let loaded = |place: &Placement| {
        let model = loader.resolve(place)?;
        memory::check(&model, &plan)?;
        (loading.room)(memory::of_machine(&model, &plan)).map_err(LoadError::Setting)?;
        load_on(&loader, &model, loading.metrics)
    };
    let (model, skipped) = first_that_works(&loader, loaded)?;
    Ok(Model { skipped, ..model })
}

/// Loads a model on its devices. Nothing is left open but a number of replicas that is to be counted.
fn load_on(
    loader: &Loader<'_>,
    model: &ResolvedModel,
    metrics: &Metrics,
) -> Result<Model, LoadError> {
    let started = Instant::now();
    let &Loader {
        name,
        config,
        plan,
        tokenizer,
        context,
    } = loader;
    let resolved = &loader.count_replicas(model)?;
    let backend = &resolved.backend;
    let runs_on = backend.engine.runs_on(backend, context)?;
    let depth = match context.cache_outlives {
        true => FingerprintDepth::Anywhere,
        false => FingerprintDepth::WithinProcess,
    };
    let identity = Identity {
        folders: plan.folder.folders(),
        backend: backend.clone(),
        pooling: plan.pooling,
        max_tokens: plan.max_tokens,
        variant: plan.variant(),
        runs_on,
    };
    let unreadable = || system("the model's folder cannot be read");
    let files = Files {
        stamp: identity
            .at(FingerprintDepth::WithinProcess)
            .map_err(unreadable())?,
        space: plan.vector_space().map_err(unreadable())?,
        identity: identity.clone(),
    };
    // Every byte takes as long as the load.
    let hashed = identity.clone();
    let fingerprint = std::thread::spawn(move || hashed.at(depth));
    let mut groups = open_replicas(loader, resolved)?;
    let info = described(&groups);
    let fingerprint = fingerprint
        .join()
        .map_err(|_| io::Error::other("the thread that reads it panicked"))
        .and_then(|hash| hash)
        .map_err(unreadable())?;
    let first = groups[0].backends[0].as_mut();
    let calibration = calibrate::calibration(resolved, context, &fingerprint, first)?;
    let with_reloads = |group: Group| {
        let of_files = from_files(loader, resolved, group.device);
        let of_files = of_the_same_files(identity.clone(), depth, fingerprint, of_files);
        let reload = reload(group.sharing, tokenizer.clone(), of_files);
        let backends = group.backends.into_iter();
        backends.map(move |backend| (backend, Arc::clone(&reload)))
    };
    let backends = groups.into_iter().flat_map(with_reloads).collect();
    announce(name, &info, started);
    let batching = BatcherConfig {
        capacity: config.queue_capacity,
        bulk_capacity: bulk_capacity(config.queue_capacity, context.max_inputs),
        max_queue_time: [config.max_queue_time.0, config.bulk_max_queue_time.0],
        budget: budget(loader, resolved, &calibration),
        cost: calibration.cost(&info),
        tokens_per_second: calibration.tokens_per_second(),
    };
    metrics.runs_on(name, &info);
    let metrics = metrics.model(name);
    let memory = memory::of_machine(resolved, plan);
    metrics
        .memory
        .set(i64::try_from(memory).unwrap_or(i64::MAX));
    Ok(Model {
        name: name.into(),
        tokenizing: TokenizerPool::start(name, tokenizer, config.tokenizer_threads)
            .map_err(system("no tokenizer thread"))?
            .into(),
        tokenizer: tokenizer.clone(),
        batcher: Batcher::start(name, backends, batching, &metrics).into(),
        memory,
        files,
        fingerprint,
        pooling: plan.pooling,
        normalize: plan.normalize,
        prompts: plan.prompts.clone(),
        config: config.clone(),
        info,
        skipped: Vec::new(),
        metrics,
        token_ratio: TokenRatio::new().into(),
        last_use: LastUse::now().into(),
    })
}

/// The facts of all replicas together.
fn described(groups: &[Group]) -> BackendInfo {
    let infos = || groups.iter().map(|group| group.backends[0].info());
    let devices: Vec<_> = infos().map(|info| info.device.as_str()).collect();
    BackendInfo {
        device: devices.join(","),
        max_sequence_tokens: infos()
            .map(|info| info.max_sequence_tokens)
            .min()
            .unwrap_or(0),
        ..groups[0].backends[0].info().clone()
    }
}

fn announce(name: &str, info: &BackendInfo, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        model.name = name,
        backend = info.backend,
        seconds,
        "model {name} is ready after {seconds:.1} s: {}",
        batch::describe(info)
    );
}

#[cfg(all(test, feature = "candle"))]
mod tests;
