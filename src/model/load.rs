//! Loads a configured model: folder, tokenizer, backend, warm-up.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use embedgate_config::{BackendConfig, Device, ModelConfig};
use embedgate_core::{
    Backend, BackendError, BackendInfo, FolderError, ModelFolder, Pooling, Replicas, TokenBatch,
};
use embedgate_metrics::Metrics;
use thiserror::Error;

use super::{
    Model, TokenRatio,
    calibrate::{self, Calibration},
    devices::{self, Skipped},
    engine,
    fingerprint::{self, Depth},
    memory, pins,
    prompts::Prompts,
    replicas,
    surroundings::Surroundings,
    tokenizer::{TextTokenizer, TokenizerError, TokenizerPool},
};
use crate::batch::{self, Batcher, BatcherConfig, Reload, queue::Budget};

/// Why a model cannot be loaded.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// A file of the folder is missing, broken or not supported.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The backend cannot run the model.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The configuration asks for what the model does not have.
    #[error("{0}")]
    Setting(String),
    /// The first batch failed.
    #[error("the warm-up batch failed: {0}")]
    WarmUp(#[source] BackendError),
    /// The first batch gave no numbers.
    #[error(
        "the warm-up batch gave NaN or infinite values: the weights are damaged, or this precision cannot hold them"
    )]
    NoNumbers,
    /// One more copy of the model could not be loaded.
    #[error("a replica: {0}")]
    Replica(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system gave no thread, or the folder changed while it was read.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What the files and the configuration together say of a model, before its weights are read.
pub(crate) struct Plan {
    /// The model's folder.
    pub folder: ModelFolder,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// Longest input in tokens.
    pub max_tokens: usize,
    /// What can be put in front of texts.
    pub prompts: Prompts,
}

/// Reads a model's folder and checks it against the configuration. Quick: no weights, no tokenizer.
///
/// # Errors
/// [`LoadError`] names the file or the key, and what would be right.
pub(crate) fn plan(config: &ModelConfig) -> Result<Plan, LoadError> {
    let folder = ModelFolder::open(&config.path)?;
    let limit = folder.encoder.max_sequence_tokens();
    if let Some(n) = config.max_length.filter(|n| *n > limit) {
        let message =
            format!("max_length is {n}, the model's position embedding allows at most {limit}");
        return Err(LoadError::Setting(message));
    }
    Ok(Plan {
        pooling: config
            .pooling
            .or(folder.pooling)
            .unwrap_or_else(|| usual_pooling(&folder)),
        normalize: config
            .normalize
            .unwrap_or(folder.normalize || !folder.is_stated),
        max_tokens: config.max_length.unwrap_or(folder.max_sequence_tokens),
        prompts: prompts(config, &folder)?,
        folder,
    })
}

/// Opens all that a model needs, but reads no weights: its tokenizer, its weights' directory or its ONNX file, the library, a
/// device where it needs one. Says which devices are not taken, where the configuration leaves that open.
///
/// # Errors
/// [`LoadError`] names the file and what is wrong with it.
pub(crate) fn inspect(
    name: &str,
    config: &ModelConfig,
    surroundings: &Surroundings,
) -> Result<(), LoadError> {
    let plan = plan(config)?;
    pins::check(config)?;
    check_vocabulary(&tokenizer(&plan)?, &plan)?;
    place(name, config, &plan, surroundings).map(|_| ())
}

/// The configuration with nothing left open, on the first device that takes the model.
///
/// # Errors
/// [`LoadError`] says what is missing for the last of the devices.
pub(crate) fn place(
    name: &str,
    config: &ModelConfig,
    plan: &Plan,
    surroundings: &Surroundings,
) -> Result<ModelConfig, LoadError> {
    let inspected = |config: &ModelConfig| {
        let config = engine::resolve(name, config, surroundings)?;
        memory::check(&config, plan)?;
        engine::inspect(plan, &config, surroundings)?;
        Ok(config)
    };
    first_that_works(name, config, surroundings, inspected).map(|(config, _)| config)
}

/// Tries the devices that a model may run on in their order. Returns what the first gives that works, and the others before it.
fn first_that_works<T>(
    name: &str,
    config: &ModelConfig,
    surroundings: &Surroundings,
    attempt: impl Fn(&ModelConfig) -> Result<T, LoadError>,
) -> Result<(T, Vec<Skipped>), LoadError> {
    let mut options = devices::options(config, surroundings)
        .into_iter()
        .peekable();
    let mut skipped = Vec::new();
    while let Some(option) = options.next() {
        let device = option.device.clone();
        let tried = option
            .take(surroundings)
            .map_err(LoadError::Setting)
            .and_then(|config| attempt(&config));
        match tried {
            Ok(it) => return Ok((it, skipped)),
            Err(error) if options.peek().is_none() => return Err(error),
            Err(error) => skipped.push(Skipped::new(name, &device, error.to_string())),
        }
    }
    Err(LoadError::Setting("no device can run the model".into()))
}

/// What the libraries do where a folder does not say: FlagEmbedding, which saves bge-m3's heads and no pooling, takes the
/// first token; sentence-transformers takes the mean.
fn usual_pooling(folder: &ModelFolder) -> Pooling {
    if folder.has_m3_heads {
        Pooling::Cls
    } else {
        Pooling::Mean
    }
}

/// The prompts of the folder and of the configuration; an empty name of the default turns the folder's off.
fn prompts(config: &ModelConfig, folder: &ModelFolder) -> Result<Prompts, LoadError> {
    let mut prompts = Prompts {
        default: Arc::default(),
        by_name: BTreeMap::new(),
        is_pooled: folder.prompt_is_pooled,
    };
    for (name, text) in folder.prompts.iter().chain(&config.prompts) {
        prompts.by_name.insert(name.clone(), text.as_str().into());
    }
    let name = config
        .default_prompt
        .as_ref()
        .or(folder.default_prompt.as_ref());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(prompts);
    };
    let text = prompts.by_name.get(name);
    if text.is_some_and(|text| !text.is_empty()) && !folder.prompt_is_pooled {
        let message = "the pooling module says include_prompt = false, which is not supported: set default_prompt = \"\"";
        return Err(LoadError::Setting(message.into()));
    }
    prompts.default = text.cloned().ok_or_else(|| {
        let names: Vec<_> = prompts.by_name.keys().map(String::as_str).collect();
        LoadError::Setting(format!(
            "default_prompt is \"{name}\", the prompts are: {}",
            names.join(", ")
        ))
    })?;
    Ok(prompts)
}

/// Loads a model and runs a warm-up batch. Blocks; must be called within a tokio runtime.
///
/// # Errors
/// [`LoadError`] names the file and what is wrong with it.
pub(crate) fn load(
    name: &str,
    config: &ModelConfig,
    surroundings: &Surroundings,
    metrics: &Metrics,
) -> Result<Model, LoadError> {
    let path = config.path.display();
    tracing::info!(model.name = name, %path, "loading model {name} from {path}");
    let plan = plan(config)?;
    pins::check(config)?;
    // Said here and not where it is chosen: a plan is made more than once, a model loaded once.
    let is_pooled = !plan.folder.is_cross_encoder;
    if is_pooled && config.pooling.is_none() && plan.folder.pooling.is_none() {
        let taken = format!("{:?}", plan.pooling).to_lowercase();
        tracing::warn!(
            "{path} does not say how to pool: taking {taken}; say it with the model's key \"pooling\""
        );
    }
    let tokenizer = tokenizer(&plan)?;
    check_vocabulary(&tokenizer, &plan)?;
    let loaded = |config: &ModelConfig| {
        let config = &engine::resolve(name, config, surroundings)?;
        memory::check(config, &plan)?;
        load_on(name, config, &plan, &tokenizer, surroundings, metrics)
    };
    let (model, skipped) = first_that_works(name, config, surroundings, loaded)?;
    Ok(Model { skipped, ..model })
}

/// Loads a model on the devices of its configuration, which leaves nothing open but the number of replicas.
fn load_on(
    name: &str,
    config: &ModelConfig,
    plan: &Plan,
    tokenizer: &TextTokenizer,
    surroundings: &Surroundings,
    metrics: &Metrics,
) -> Result<Model, LoadError> {
    let started = Instant::now();
    let subject = replicas::Subject {
        name,
        config,
        plan,
        tokenizer,
        surroundings,
    };
    let config = &subject.resolve()?;
    let runs_on = engine::runs_on(config, surroundings)?;
    let identity = identity(config, plan, surroundings, runs_on);
    let fingerprint = std::thread::spawn(identity.clone());
    let mut groups = open_replicas(config, plan, tokenizer, surroundings)?;
    let info = described(&groups);
    let fingerprint = fingerprint
        .join()
        .map_err(|_| io::Error::other("the thread that reads it panicked"))
        .and_then(|hash| hash)
        .map_err(system("the model's folder cannot be read"))?;
    let first = groups[0].backends[0].as_mut();
    let calibration = calibrate::calibration(config, surroundings, &fingerprint, first)?;
    let with_reloads = |group: Group| {
        let of_files = from_files(&group.config, surroundings);
        let of_files = of_the_same_files(config, identity.clone(), fingerprint, of_files);
        let reload = reload(group.sharing, tokenizer.clone(), of_files);
        let backends = group.backends.into_iter();
        backends.map(move |backend| (backend, Arc::clone(&reload)))
    };
    let backends = groups.into_iter().flat_map(with_reloads).collect();
    announce(name, &info, started);
    let batching = BatcherConfig {
        capacity: config.queue_capacity,
        bulk_capacity: bulk_capacity(config.queue_capacity, surroundings.max_inputs),
        max_queue_time: [config.max_queue_time.0, config.bulk_max_queue_time.0],
        budget: budget(name, config, &calibration),
        cost: calibration.cost(&info),
        tokens_per_second: calibration.tokens_per_second(),
    };
    metrics.runs_on(name, &info);
    let metrics = metrics.model(name);
    Ok(Model {
        name: name.into(),
        tokenizing: TokenizerPool::start(name, tokenizer, config.tokenizer_threads)
            .map_err(system("no tokenizer thread"))?,
        tokenizer: tokenizer.clone(),
        batcher: Batcher::start(name, backends, batching, &metrics),
        fingerprint,
        pooling: plan.pooling,
        normalize: plan.normalize,
        prompts: plan.prompts.clone(),
        config: config.clone(),
        info,
        skipped: Vec::new(),
        metrics,
        token_ratio: TokenRatio::new(),
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

/// An eighth of the queue is left to queries, unless the largest request would not fit then.
fn bulk_capacity(capacity: usize, max_inputs: usize) -> usize {
    (capacity - capacity / 8).max(max_inputs.min(capacity))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> LoadError {
    move |source| LoadError::System { what, source }
}

/// Makes backends that share weights which are in memory, where that can be.
type Sharing = Option<Replicas>;

/// The replicas on one device, at least one.
pub(super) struct Group {
    /// Of the device alone.
    config: ModelConfig,
    pub(super) backends: Vec<Box<dyn Backend>>,
    sharing: Sharing,
}

/// Opens as many backends as the configuration says, warmed up, on each device.
pub(super) fn open_replicas(
    config: &ModelConfig,
    plan: &Plan,
    tokenizer: &TextTokenizer,
    surroundings: &Surroundings,
) -> Result<Vec<Group>, LoadError> {
    let BackendConfig {
        kind, precision, ..
    } = config.backend;
    let on_device = |device| {
        let config = ModelConfig {
            backend: config.backend.at(kind, device, Some(precision)),
            ..config.clone()
        };
        let mut first = engine::open(plan, &config, tokenizer, surroundings)?;
        warm_up(first.as_mut(), tokenizer)?;
        let sharing = first.replicas();
        let more = reload(
            sharing.clone(),
            tokenizer.clone(),
            from_files(&config, surroundings),
        );
        let mut backends = vec![first];
        while backends.len() < config.replicas.get() {
            backends.push(more().map_err(LoadError::Replica)?);
        }
        Ok(Group {
            config,
            backends,
            sharing,
        })
    };
    config
        .backend
        .all_devices()
        .into_iter()
        .map(on_device)
        .collect()
}

/// Makes one more backend of the model, warmed up: as a replica, or in the place of one that was lost. With the weights in
/// memory where replicas can share them, unless they were lost too; else with those of the files, which others share then.
fn reload(sharing: Sharing, tokenizer: TextTokenizer, of_files: Reload) -> Reload {
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
fn from_files(config: &ModelConfig, surroundings: &Surroundings) -> Reload {
    let (config, surroundings) = (config.clone(), surroundings.clone());
    Arc::new(move || {
        let plan = plan(&config)?;
        let tokenizer = tokenizer(&plan)?;
        let mut backend = engine::open(&plan, &config, &tokenizer, &surroundings)?;
        warm_up(backend.as_mut(), &tokenizer)?;
        Ok(backend)
    })
}

/// Refuses to read files again that are others by now: their vectors would be answered, and kept, as those of the model that
/// was loaded.
fn of_the_same_files(
    config: &ModelConfig,
    identity: impl Fn() -> io::Result<blake3::Hash> + Send + Sync + 'static,
    loaded: blake3::Hash,
    reload: Reload,
) -> Reload {
    let path = config.path.clone();
    Arc::new(move || {
        let backend = reload()?;
        // After it was read: before, it could still change.
        let now = identity().map_err(system("the model's folder cannot be read"))?;
        if now != loaded {
            return Err(LoadError::Setting(format!(
                "{} has changed since the model was loaded: restart to serve what is there now",
                path.display()
            ))
            .into());
        }
        Ok(backend)
    })
}

/// Makes a function that finds the model's identity: where every byte counts, that takes as long as to load it. `runs_on` is
/// what the load found: a card that is lost cannot be asked again.
fn identity(
    config: &ModelConfig,
    plan: &Plan,
    surroundings: &Surroundings,
    runs_on: String,
) -> impl Fn() -> io::Result<blake3::Hash> + Clone + Send + Sync + 'static {
    let depth = if surroundings.cache_outlives {
        Depth::EveryByte
    } else {
        Depth::ThisProcess
    };
    let (config, pooling, max_tokens) = (config.clone(), plan.pooling, plan.max_tokens);
    move || fingerprint::fingerprint(&config, pooling, max_tokens, &runs_on, depth)
}

fn budget(name: &str, config: &ModelConfig, calibration: &Calibration) -> Budget {
    let best = match config.backend.one_device() {
        Device::Cpu => calibration.best_batch_tokens(),
        // The batches that are measured are far too small to fill one.
        Device::Cuda(_) | Device::WebGpu => engine::CARD_TOKENS,
    };
    let max_batch_tokens = config.max_batch_tokens.unwrap_or(best);
    let rate = calibration.tokens_per_second();
    tracing::info!(
        model.name = name,
        max_batch_tokens,
        tokens_per_second = rate,
        "model {name} does about {rate:.0} tokens/s; batches of up to {max_batch_tokens} tokens"
    );
    Budget {
        max_batch_tokens,
        max_batch_seconds: config.max_batch_time.0.as_secs_f64(),
        aging_seconds: config.bulk_max_wait.0.as_secs_f64(),
    }
}

/// Loads the tokenizer of a planned model.
///
/// # Errors
/// [`TokenizerError`] names the file and what is wrong with it.
pub(crate) fn tokenizer(plan: &Plan) -> Result<TextTokenizer, TokenizerError> {
    TextTokenizer::load(&plan.folder.path, plan.max_tokens, &plan.folder.tokenizer)
}

/// A tokenizer of another model would give ids that the weights do not have.
fn check_vocabulary(tokenizer: &TextTokenizer, plan: &Plan) -> Result<(), LoadError> {
    let (max_id, size) = (tokenizer.max_id(), plan.folder.encoder.vocabulary_size);
    if (max_id as usize) < size {
        return Ok(());
    }
    let path = plan.folder.path.join("tokenizer.json");
    let message = format!(
        "{} has the token id {max_id}, the model's vocabulary has {size} ids",
        path.display()
    );
    Err(LoadError::Setting(message))
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
