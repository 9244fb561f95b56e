//! Loads a configured model: folder, tokenizer, backend, warm-up. The one match that names backends is here.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, bail};
use embedgate_core::{Backend, BackendInfo, ModelFolder, Outputs, Pooling, TokenBatch};

use super::{
    Model, ModelParts,
    fingerprint::fingerprint,
    tokenizer::{TextTokenizer, TokenizerPool},
};
use crate::{
    batch::{self, Batcher},
    config::{BackendType, Environment, ModelConfig, OnnxRuntimeConfig},
};

/// What loading needs to know beyond the model's own configuration.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// A library that the user named.
    pub onnxruntime: Option<PathBuf>,
    /// Folders where ONNX Runtime's library may be.
    pub library_folders: Vec<PathBuf>,
    /// Threads of a matrix product where the model's config says nothing.
    pub default_threads: usize,
}

impl Surroundings {
    /// Looks at the configuration, the environment, the program's own place and the working folder.
    #[must_use]
    pub fn new(config: &OnnxRuntimeConfig, environment: &Environment) -> Self {
        let named = config
            .library
            .clone()
            .or_else(|| environment.get("ORT_DYLIB_PATH").map(PathBuf::from));
        let mut folders = Vec::new();
        if let Some(beside) = environment.program_folder() {
            // The last is for a program run from cargo's target folder, wherever it is run.
            folders.extend([
                beside.to_owned(),
                beside.join("lib"),
                beside.join("../../.embedgate/lib"),
            ]);
        }
        folders.extend([
            PathBuf::from(".embedgate/lib"),
            "/usr/local/lib/embedgate".into(),
            "/usr/lib/embedgate".into(),
        ]);
        let default_threads =
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            onnxruntime: named,
            library_folders: folders,
            default_threads,
        }
    }
}

/// What the files and the configuration together say of a model, before its weights are read.
pub struct Plan {
    /// The model's folder.
    pub folder: ModelFolder,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether vectors get length 1.
    pub normalize: bool,
    /// Longest input in tokens.
    pub max_tokens: usize,
    /// Put in front of every text.
    pub prompt: String,
}

/// Reads a model's folder and checks it against the configuration. Quick: no weights, no tokenizer.
///
/// # Errors
/// A sentence that names the file or the key, and what would be right.
pub fn plan(config: &ModelConfig) -> anyhow::Result<Plan> {
    let folder = ModelFolder::open(&config.path)?;
    let limit = folder.encoder.max_sequence_tokens();
    if let Some(n) = config.max_length.filter(|n| *n > limit) {
        bail!("max_length is {n}, the model's position embedding allows at most {limit}");
    }
    let max_tokens = config.max_length.unwrap_or(folder.max_sequence_tokens);
    let mut prompts = folder.prompts.clone();
    prompts.extend(config.prompts.clone());
    let prompt = match config
        .default_prompt
        .as_ref()
        .or(folder.default_prompt.as_ref())
    {
        None => String::new(),
        Some(name) => prompts.get(name).cloned().with_context(|| {
            let names: Vec<_> = prompts.keys().map(String::as_str).collect();
            format!(
                "default_prompt is \"{name}\", the prompts are: {}",
                names.join(", ")
            )
        })?,
    };
    let has_modules = folder.path.join("modules.json").exists();
    Ok(Plan {
        pooling: config.pooling.or(folder.pooling).unwrap_or(Pooling::Mean),
        normalize: config.normalize.unwrap_or(folder.normalize || !has_modules),
        max_tokens,
        prompt,
        folder,
    })
}

/// Loads a model and runs a warm-up batch. Blocks; must be called within a tokio runtime.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn load(
    name: &str,
    config: &ModelConfig,
    surroundings: &Surroundings,
) -> anyhow::Result<Model> {
    let started = Instant::now();
    tracing::info!(model.name = name, path = %config.path.display(), "loading model {name} from {}", config.path.display());
    let plan = plan(config)?;
    let tokenizer = TextTokenizer::load(&plan.folder.path, plan.max_tokens)?;
    let mut backend = backend(&plan, config, &tokenizer, surroundings)?;
    warm_up(backend.as_mut(), &tokenizer).context("the warm-up batch failed")?;
    let info = backend.info().clone();
    let hash = fingerprint(
        &config.path,
        config.backend.file.as_deref(),
        &info,
        plan.pooling,
    )
    .with_context(|| format!("{} cannot be read", config.path.display()))?;
    announce(name, &info, started);
    Ok(Model::new(ModelParts {
        name: name.into(),
        tokenizer: TokenizerPool::start(name, &tokenizer, config.tokenizer_threads)
            .context("no tokenizer thread")?,
        batcher: Batcher::start(
            name,
            backend,
            config.queue_capacity,
            config.max_batch_tokens,
        )
        .context("no worker thread")?,
        fingerprint: hash,
        normalize: plan.normalize,
        prompt: plan.prompt,
        config: config.clone(),
        info,
    }))
}

/// Opens the configured backend.
///
/// # Errors
/// The backend's own sentence.
pub fn backend(
    plan: &Plan,
    config: &ModelConfig,
    tokenizer: &TextTokenizer,
    surroundings: &Surroundings,
) -> anyhow::Result<Box<dyn Backend>> {
    let threads = config
        .backend
        .threads
        .unwrap_or(surroundings.default_threads);
    match config.backend.kind {
        #[cfg(feature = "candle")]
        BackendType::Candle => {
            let options = embedgate_candle::Options {
                pooling: plan.pooling,
                max_sequence_tokens: plan.max_tokens,
                special_token_ids: tokenizer.special_token_ids(),
                threads,
            };
            Ok(Box::new(embedgate_candle::CandleBackend::load(
                &plan.folder,
                options,
            )?))
        }
        #[cfg(feature = "onnx")]
        BackendType::Onnx => {
            let library = embedgate_onnx::runtime::Candidates {
                named: surroundings.onnxruntime.clone(),
                folders: surroundings.library_folders.clone(),
            };
            let options = embedgate_onnx::Options {
                file: config.backend.file.clone(),
                library,
                pooling: plan.pooling,
                max_sequence_tokens: plan.max_tokens,
                special_token_ids: tokenizer.special_token_ids(),
                threads,
            };
            Ok(Box::new(embedgate_onnx::OnnxBackend::load(
                &plan.folder,
                options,
            )?))
        }
        #[cfg(not(all(feature = "candle", feature = "onnx")))]
        missing => bail!(
            "this embedgate was built without the {missing:?} backend: build it with that cargo feature"
        ),
    }
}

/// The first run of a model allocates, reads weights from the disk and plans: no request should pay for that.
fn warm_up(backend: &mut dyn Backend, tokenizer: &TextTokenizer) -> anyhow::Result<()> {
    let tokens = tokenizer.encode("warm-up").map_err(anyhow::Error::msg)?;
    let batch: TokenBatch = std::iter::once(tokens.ids.as_slice()).collect();
    backend.embed(&batch, Outputs::DENSE)?;
    Ok(())
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
