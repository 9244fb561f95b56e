//! Loads a configured model: folder, tokenizer, backend, warm-up.

mod backends;

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use embedgate_config::{Device, ModelConfig};
use embedgate_core::{BackendError, BackendInfo, FolderError, ModelFolder, Pooling};
use embedgate_metrics::Metrics;
use thiserror::Error;

pub(super) use self::backends::{Group, open_replicas};
use self::backends::{from_files, of_the_same_files, reload};
use super::{
    Files, LastUse, Model, Outline, TokenRatio,
    calibrate::{self, Calibration},
    devices::{self, Skipped},
    engine,
    fingerprint::{Depth, Identity, vector_space},
    memory, pins,
    prompts::Prompts,
    replicas,
    surroundings::Surroundings,
    tokenizer::{TextTokenizer, TokenizerError, TokenizerPool},
};
use crate::batch::{self, Batcher, BatcherConfig, queue::Budget};

/// The reason why a model cannot be loaded.
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
        /// The action that failed.
        what: &'static str,
        /// The cause of the failure.
        #[source]
        source: io::Error,
    },
}

/// The facts of a model from its files and its configuration, before its weights are read.
pub(crate) struct Plan {
    /// The model's folder.
    pub folder: ModelFolder,
    /// The method that makes one vector of the token vectors.
    pub pooling: Pooling,
    /// True when vectors are normalized to length 1.
    pub normalize: bool,
    /// Longest input in tokens.
    pub max_tokens: usize,
    /// The prompts that can be put in front of texts.
    pub prompts: Prompts,
}

impl Plan {
    /// Computes the hash that models share when their vectors can be compared.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn vector_space(&self) -> io::Result<blake3::Hash> {
        let (pooling, normalize) = (self.pooling, self.normalize);
        vector_space(&self.folder.path, pooling, normalize, &self.prompts.default)
    }

    /// Returns the facts of the model that are known before it is loaded.
    #[must_use]
    pub(crate) fn outline(&self) -> Outline {
        Outline {
            scores: self.folder.is_cross_encoder,
            max_sequence_tokens: self.max_tokens,
            dimensions: self.folder.encoder.hidden_size,
        }
    }
}

/// Reads a model's folder and checks it against the configuration. Quick: no weights, no tokenizer.
///
/// # Errors
/// [`LoadError`] names the file or the key, and what would be right.
pub(crate) fn plan(config: &ModelConfig) -> Result<Plan, LoadError> {
    if let Some(problem) = to_fetch(config) {
        return Err(LoadError::Setting(problem));
    }
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

/// Says how to fetch a model that has a source and is not there.
#[must_use]
pub(crate) fn to_fetch(config: &ModelConfig) -> Option<String> {
    let source = config.source.as_ref().filter(|_| !config.path.is_dir())?;
    let path = config.path.display();
    Some(format!(
        "{path} is not there: `embedgate serve --pull` fetches it, or `embedgate pull {source} --to {path}`"
    ))
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

/// Returns the pooling that the libraries use when a folder names none. FlagEmbedding, which saves bge-m3's heads and
/// no pooling, takes the first token; sentence-transformers takes the mean.
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

/// Finds room in memory for so many bytes, or says why there is none.
pub(crate) type Room<'a> = &'a (dyn Fn(u64) -> Result<(), String> + 'a);

/// The inputs of a load, in addition to the model's own configuration.
#[derive(Clone, Copy)]
pub(crate) struct Loading<'a> {
    pub(crate) surroundings: &'a Surroundings,
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
    let surroundings = loading.surroundings;
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
        (loading.room)(memory::of_machine(config, &plan)).map_err(LoadError::Setting)?;
        load_on(name, config, &plan, &tokenizer, loading)
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
    loading: Loading<'_>,
) -> Result<Model, LoadError> {
    let started = Instant::now();
    let Loading {
        surroundings,
        metrics,
        ..
    } = loading;
    let subject = replicas::Subject {
        name,
        config,
        plan,
        tokenizer,
        surroundings,
    };
    let config = &subject.resolve()?;
    let runs_on = engine::runs_on(config, surroundings)?;
    let depth = match surroundings.cache_outlives {
        true => Depth::EveryByte,
        false => Depth::ThisProcess,
    };
    let identity = Identity {
        config: config.clone(),
        pooling: plan.pooling,
        max_tokens: plan.max_tokens,
        runs_on,
    };
    let unreadable = || system("the model's folder cannot be read");
    let files = Files {
        stamp: identity.at(Depth::ThisProcess).map_err(unreadable())?,
        space: plan.vector_space().map_err(unreadable())?,
        identity: identity.clone(),
    };
    // Every byte takes as long as the load.
    let hashed = identity.clone();
    let fingerprint = std::thread::spawn(move || hashed.at(depth));
    let mut groups = open_replicas(config, plan, tokenizer, surroundings)?;
    let info = described(&groups);
    let fingerprint = fingerprint
        .join()
        .map_err(|_| io::Error::other("the thread that reads it panicked"))
        .and_then(|hash| hash)
        .map_err(unreadable())?;
    let first = groups[0].backends[0].as_mut();
    let calibration = calibrate::calibration(config, surroundings, &fingerprint, first)?;
    let with_reloads = |group: Group| {
        let of_files = from_files(&group.config, surroundings);
        let of_files = of_the_same_files(identity.clone(), depth, fingerprint, of_files);
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
            .map_err(system("no tokenizer thread"))?
            .into(),
        tokenizer: tokenizer.clone(),
        batcher: Batcher::start(name, backends, batching, &metrics).into(),
        memory: memory::of_machine(config, plan),
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

/// An eighth of the queue is left to queries, unless the largest request would not fit then.
fn bulk_capacity(capacity: usize, max_inputs: usize) -> usize {
    (capacity - capacity / 8).max(max_inputs.min(capacity))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> LoadError {
    move |source| LoadError::System { what, source }
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
