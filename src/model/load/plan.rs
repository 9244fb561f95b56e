//! The plan of a model: what its folder and its configuration say, before its weights are read.

use std::{collections::BTreeMap, io, sync::Arc};

use embedgate_config::ModelConfig;
use embedgate_core::{ModelFolder, Pooling};

use super::{
    super::{
        entry::Outline,
        fingerprint::vector_space,
        prompts::Prompts,
        tokenizer::{TextTokenizer, TokenizerError},
    },
    error::LoadError,
};

/// The facts of a model from its files and its configuration, before its weights are read.
pub(crate) struct Plan {
    /// The model's folder.
    pub folder: ModelFolder,
    /// The method that makes one vector of the token vectors.
    pub pooling: Pooling,
    /// Width of a dense vector; 0 where the model gives none.
    pub dimensions: usize,
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
        let folders = self.folder.folders();
        vector_space(&folders, pooling, normalize, &self.prompts.default)
    }

    /// Returns the facts of the model that are known before it is loaded.
    #[must_use]
    pub(crate) fn outline(&self) -> Outline {
        Outline {
            scores: self.folder.is_cross_encoder,
            max_sequence_tokens: self.max_tokens,
            dimensions: self.dimensions,
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
    let limit = folder.encoder.max_sequence_tokens;
    if let Some(n) = config.max_length.filter(|n| *n > limit) {
        let message = format!("max_length is {n}, the model takes at most {limit}");
        return Err(LoadError::Setting(message));
    }
    let pooling = config.pooling.or(folder.pooling);
    if pooling.is_none() && folder.splade.is_none() {
        check_class(&folder)?;
    }
    let pooling = pooling.unwrap_or_else(|| usual_pooling(&folder));
    Ok(Plan {
        pooling,
        dimensions: match folder.splade {
            Some(_) => 0,
            None => folder.dimensions(pooling)?,
        },
        normalize: config
            .normalize
            .unwrap_or(folder.normalize || !folder.is_stated),
        max_tokens: config.max_length.unwrap_or(folder.max_sequence_tokens),
        prompts: prompts(config, &folder)?,
        folder,
    })
}

/// The ends of names of classes that are encoders, with whatever head.
const ENCODERS: [&str; 7] = [
    "Model",
    "ForMaskedLM",
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForConditionalGeneration",
];

/// Refuses a model that writes texts, or ranks them, and does not say how it makes vectors: rerankers are such models.
fn check_class(folder: &ModelFolder) -> Result<(), LoadError> {
    let is_encoder = |class: &str| ENCODERS.iter().any(|end| class.ends_with(end));
    let class = folder.architectures.first();
    match class.filter(|class| !is_encoder(class)) {
        None => Ok(()),
        Some(class) => Err(LoadError::Setting(format!(
            "{}: architectures is {class}, and the folder does not say how its token vectors become one: it may be a reranker or a \
             language model; if it is an embedder, say it with the model's key pooling, such as pooling = \"last\"",
            folder.encoder_path.join("config.json").display()
        ))),
    }
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

/// Returns the pooling that the libraries use when a folder names none. FlagEmbedding, which saves bge-m3's heads and
/// no pooling, takes the first token; sentence-transformers takes the mean.
fn usual_pooling(folder: &ModelFolder) -> Pooling {
    if folder.has_m3_heads {
        Pooling::CLS
    } else {
        Pooling::MEAN
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

/// Loads the tokenizer of a planned model.
///
/// # Errors
/// [`TokenizerError`] names the file and what is wrong with it.
pub(crate) fn tokenizer(plan: &Plan) -> Result<TextTokenizer, TokenizerError> {
    TextTokenizer::load(
        &plan.folder.encoder_path,
        plan.max_tokens,
        &plan.folder.tokenizer,
    )
}

/// A tokenizer of another model would give ids that the weights do not have.
pub(super) fn check_vocabulary(tokenizer: &TextTokenizer, plan: &Plan) -> Result<(), LoadError> {
    let (max_id, size) = (tokenizer.max_id(), plan.folder.encoder.vocabulary_size());
    if (max_id as usize) < size {
        return Ok(());
    }
    let path = plan.folder.encoder_path.join("tokenizer.json");
    let message = format!(
        "{} has the token id {max_id}, the model's vocabulary has {size} ids",
        path.display()
    );
    Err(LoadError::Setting(message))
}
