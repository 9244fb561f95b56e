//! Reads what a model folder says of its model, as sentence-transformers and FlagEmbedding lay it out.
//!
//! Weights and tokenizer are not opened here: the backends and the gateway's tokenizer do that.

mod chat_template;
mod classifier;
mod layout;
mod modules;
mod static_embedding;
mod supported;
mod texts;
mod tokenizer;
mod variant;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use self::{
    chat_template::ChatTemplate,
    static_embedding::{StaticEmbedding, StaticValues},
    tokenizer::{AddedToken, TokenizerScheme, TokenizerSettings},
    variant::Variant,
};
use self::{modules::Modules, texts::PromptsFile, tokenizer::file::TokenizerConfigFile};
use crate::{
    EncoderConfig, Pooling, encoder::Classifier, impostor, splade::SpladePooling,
    vector_module::VectorModule,
};

/// The settings that the files of a model folder state.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    /// The folder of the encoder's own files, with its tokenizer: the same, or one within.
    pub encoder_path: PathBuf,
    /// From `config.json`.
    pub encoder: EncoderConfig,
    /// From the pooling module's `config.json`; none where the folder has no such module.
    pub pooling: Option<Pooling>,
    /// The modules that `modules.json` puts behind the pooling, without a normalization that comes last.
    pub vector_modules: Vec<VectorModule>,
    /// True when `modules.json` ends with a normalizing module.
    pub normalize: bool,
    /// True when there is a `modules.json`: without it, the folder does not state pooling and normalization.
    pub is_stated: bool,
    /// True when the tokens of a prompt are pooled together with the text's tokens.
    pub prompt_is_pooled: bool,
    /// Longest sequence in tokens, special tokens included: the least of what the files say.
    pub max_sequence_tokens: usize,
    /// The settings of the tokenizer that the folder states outside `tokenizer.json`.
    pub tokenizer: TokenizerSettings,
    /// The folder of the pooling module.
    pub pooling_folder: Option<PathBuf>,
    /// The classes that `config.json` names as the model's.
    pub architectures: Vec<String>,
    /// The pooling of a SPLADE model, which gives sparse weights alone.
    pub splade: Option<SpladePooling>,
    /// The vectors of tokens where there is no encoder.
    pub static_embedding: Option<StaticEmbedding>,
    /// True when the folder contains the heads of bge-m3.
    pub has_m3_heads: bool,
    /// True when the model scores pairs of texts and gives no embeddings: a sequence classifier of one label, or a language model
    /// that answers with a token.
    pub is_cross_encoder: bool,
    /// The template that texts go through, where they do so.
    pub chat_template: Option<ChatTemplate>,
    /// From `config_sentence_transformers.json`: the numbers of a vector that are kept, where some are cut.
    pub truncate_dim: Option<usize>,
    /// From the same file: the weights of a sparse vector that are kept, the largest, where some are left out.
    pub max_active_dims: Option<usize>,
    /// The routes of a router, of which one is served; none where there is no router.
    pub routes: Vec<String>,
    /// The route that is served.
    pub route: Option<String>,
    /// From `config_sentence_transformers.json`: text put in front of inputs, by name.
    pub prompts: BTreeMap<String, String>,
    /// The prompt that is used when none is named.
    pub default_prompt: Option<String>,
}

/// The reasons why a folder is not a model that can be served: the file, and the problem with it.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The folder itself is not there.
    #[error("{} is not a folder: expected a model folder with config.json and tokenizer.json", .0.display())]
    NotAFolder(PathBuf),
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause of the failure.
        #[source]
        source: io::Error,
    },
    /// A file says something that is broken or not supported.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem, and the supported values.
        problem: String,
    },
}

impl ModelFolder {
    /// Reads the folder's JSON files, without a choice of one of the models that it may hold.
    ///
    /// # Errors
    /// [`FolderError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::open_variant(path, Variant::default())
    }

    /// Reads the folder's JSON files for one of the models that it holds.
    ///
    /// # Errors
    /// [`FolderError`] names the file and what is wrong with it.
    pub fn open_variant(path: &Path, variant: Variant<'_>) -> Result<Self, FolderError> {
        if !path.is_dir() {
            return Err(match layout::problem(path) {
                Some(problem) => FolderError::Invalid {
                    path: path.to_owned(),
                    problem,
                },
                None => FolderError::NotAFolder(path.to_owned()),
            });
        }
        let modules = Modules::read(path, variant.route)?;
        let encoder_path = &modules.encoder;
        refuse_adapters(path)?;
        refuse_adapters(encoder_path)?;
        let config = encoder_path.join("config.json");
        if !config.exists()
            && modules.static_embedding.is_none()
            && let Some(problem) = layout::problem(path)
        {
            return Err(FolderError::Invalid {
                path: path.to_owned(),
                problem,
            });
        }
        let encoder = match &modules.static_embedding {
            Some(embedding) => embedding.encoder(),
            None => encoder(&config)?,
        };
        let is_cross_encoder = classifier::is_cross_encoder(encoder_path, &modules)?;
        let (sentence_path, sentence) = texts::sentence_file(encoder_path)?;
        let of_prompts = path.join("config_sentence_transformers.json");
        let prompts: PromptsFile = read_json(&of_prompts)?.unwrap_or_default();
        let limits = prompts.limits().map_err(|problem| FolderError::Invalid {
            path: of_prompts,
            problem,
        });
        let [truncate_dim, max_active_dims] = limits?;
        let tokenizer = match &modules.static_embedding {
            // Nothing beside tokenizer.json is read.
            Some(embedding) if !embedding.is_sparse() => TokenizerConfigFile::default(),
            _ => TokenizerConfigFile::read(encoder_path)?,
        };
        let max_sequence_tokens = texts::max_sequence_tokens(
            sentence_path,
            &sentence,
            tokenizer.model_max_length,
            &encoder,
        )?;
        let chat_template = match sentence.takes_messages() {
            Some(false) => None,
            // Embedders took texts alone before there was a word for it.
            None if modules.pooling.is_some() || modules.splade.is_some() => None,
            _ => chat_template::source(encoder_path)?.map(|source| ChatTemplate {
                source,
                variables: sentence.template_variables(),
            }),
        };
        let answer_tokens = modules.answer_tokens;
        let mut folder = Self {
            path: path.to_owned(),
            chat_template,
            pooling: modules.pooling,
            pooling_folder: modules.pooling_folder,
            architectures: classifier::architectures(&modules.encoder)?,
            splade: modules.splade,
            static_embedding: modules.static_embedding,
            normalize: modules.normalize,
            is_stated: modules.stated,
            prompt_is_pooled: !modules.without_prompt,
            max_sequence_tokens,
            tokenizer: tokenizer.settings(
                encoder_path,
                &encoder.model_type,
                sentence.do_lower_case,
            )?,
            has_m3_heads: ["sparse_linear.pt", "colbert_linear.pt"]
                .iter()
                .any(|name| path.join(name).exists()),
            is_cross_encoder,
            truncate_dim,
            max_active_dims,
            routes: modules.routes,
            route: modules.route,
            default_prompt: prompts.default_prompt_name.clone(),
            prompts: prompts.texts(),
            encoder,
            encoder_path: modules.encoder,
            vector_modules: modules.vectors,
        };
        if let Some(task) = variant.adapter {
            folder.apply_adapter(task)?;
        }
        if let Some(embedding) = &folder.static_embedding {
            folder.tokenizer.bare = Some(embedding.empty());
            let most = embedding.max_tokens.unwrap_or(usize::MAX);
            folder.max_sequence_tokens = folder.max_sequence_tokens.min(most);
        }
        if let Some(template) = &mut folder.chat_template {
            for (name, token) in &folder.tokenizer.named_tokens {
                let token = token.content.clone();
                let variable = template.variables.entry(*name);
                variable.or_insert_with(|| token.into());
            }
        }
        if let Some(tokens) = answer_tokens {
            folder.answer_with(tokens)?;
        }
        folder.check_messages()?;
        folder.dimensions(folder.pooling.unwrap_or(Pooling::CLS))?;
        Ok(folder)
    }
}

impl ModelFolder {
    /// Returns the width of a dense vector behind all modules, with this pooling.
    ///
    /// # Errors
    /// [`FolderError::Invalid`] when a module reads vectors of another width than the one before it gives.
    pub fn dimensions(&self, pooling: Pooling) -> Result<usize, FolderError> {
        let mut width = pooling.width_of(self.encoder.hidden_size);
        for module in &self.vector_modules {
            width = module
                .width_of(width)
                .map_err(|reads| FolderError::Invalid {
                    path: module.folder().unwrap_or(&self.path).join("config.json"),
                    problem: format!(
                        "it reads {reads} numbers, the module before it gives {width}"
                    ),
                })?;
        }
        Ok(width)
    }

    /// Cuts vectors behind all modules, where the folder says so, and behind the folder's own normalization unless `normalize` says
    /// whether the outcome is normalized.
    pub fn truncate(&mut self, normalize: Option<bool>) {
        let Some(n) = self.truncate_dim else {
            return;
        };
        if normalize.is_none() && std::mem::take(&mut self.normalize) {
            self.vector_modules.push(VectorModule::Normalize);
        }
        self.vector_modules.push(VectorModule::Truncate(n));
    }

    /// The modules that cut a vector, and normalize it before; none where the folder says nothing of it.
    #[must_use]
    pub fn truncation(&self) -> &[VectorModule] {
        let modules = &self.vector_modules;
        let first = match modules[..] {
            [.., VectorModule::Normalize, VectorModule::Truncate(_)] => modules.len() - 2,
            [.., VectorModule::Truncate(_)] => modules.len() - 1,
            _ => modules.len(),
        };
        &modules[first..]
    }

    /// Returns true where the model gives sparse weights, and neither vectors nor scores.
    #[must_use]
    pub fn is_sparse_alone(&self) -> bool {
        let embedding = self.static_embedding.as_ref();
        self.splade.is_some() || embedding.is_some_and(StaticEmbedding::is_sparse)
    }

    /// Returns the head of a cross-encoder; none where the model gives embeddings.
    #[must_use]
    pub fn scoring_head(&self) -> Option<&Classifier> {
        let head = self.encoder.classifier.as_ref();
        head.filter(|_| self.is_cross_encoder)
    }

    /// Returns the folders that hold the model's files: its own first, then those of the encoder and of modules.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let modules = self.vector_modules.iter();
        let modules = modules.filter_map(VectorModule::folder);
        // That of a pooling says what the configuration says too.
        let is_head = self.splade.is_some() || self.is_cross_encoder;
        let of_head = self.pooling_folder.iter().filter(|_| is_head);
        let mut folders = vec![self.path.clone()];
        for folder in std::iter::once(&self.encoder_path)
            .chain(modules)
            .chain(of_head)
        {
            if !folders.contains(folder) {
                folders.push(folder.clone());
            }
        }
        folders
    }

    /// Returns the name of the tensor that holds the vectors of tokens.
    #[must_use]
    pub fn words(&self) -> &str {
        &self.encoder.embeddings.words.name
    }
}

/// Reads the description of the encoder, or its sizes where there is none.
fn encoder(path: &Path) -> Result<EncoderConfig, FolderError> {
    let text = read(path)?;
    let described = EncoderConfig::from_json(&text);
    let encoder = described.or_else(|why| EncoderConfig::without_description(&text, why));
    encoder.map_err(|problem| FolderError::Invalid {
        path: path.to_owned(),
        problem,
    })
}

/// Returns true when a folder has the file that a model's begins with: that of the encoder, or of the modules where there is none.
#[must_use]
pub fn is_model_folder(folder: &Path) -> bool {
    ["config.json", "modules.json"]
        .iter()
        .any(|name| folder.join(name).is_file())
}

/// Weights of an adapter change those of the model; they are not applied here.
fn refuse_adapters(folder: &Path) -> Result<(), FolderError> {
    let names = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapter_model.bin",
    ];
    let paths = names.map(|name| folder.join(name));
    match paths.into_iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => Err(FolderError::Invalid {
            path,
            problem: "the model has an adapter (PEFT, LoRA), which is not applied: merge it into the weights, such as with \
                      merge_and_unload of peft, and remove the adapter's files"
                .into(),
        }),
    }
}

fn read(path: &Path) -> Result<String, FolderError> {
    if let Some(problem) = impostor(path) {
        return Err(FolderError::Invalid {
            path: path.to_owned(),
            problem: problem.into(),
        });
    }
    std::fs::read_to_string(path).map_err(|source| FolderError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

/// Reads an optional file: none when it is not there.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, FolderError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read(path)?;
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|e| FolderError::Invalid {
        path: path.to_owned(),
        problem: e.to_string(),
    })
}
