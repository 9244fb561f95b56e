//! Reads what a model folder says of its model, as sentence-transformers and FlagEmbedding lay it out.
//!
//! Weights and tokenizer are not opened here: the backends and the gateway's tokenizer do that.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;

use crate::{EncoderConfig, Pooling};

/// What the files of a model folder say.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFolder {
    /// The folder.
    pub path: PathBuf,
    /// From `config.json`.
    pub encoder: EncoderConfig,
    /// From the pooling module's `config.json`; none where the folder has no such module.
    pub pooling: Option<Pooling>,
    /// Whether `modules.json` ends with a normalizing module.
    pub normalize: bool,
    /// Longest sequence in tokens, special tokens included: the least of what the files say.
    pub max_sequence_tokens: usize,
    /// From `config_sentence_transformers.json`: text put in front of inputs, by name.
    pub prompts: BTreeMap<String, String>,
    /// Which of the prompts is used when none is named.
    pub default_prompt: Option<String>,
}

/// Why a folder is not a model that can be served: which file, and what is wrong with it.
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
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file says something that is broken or not supported.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is supported.
        problem: String,
    },
}

impl ModelFolder {
    /// Reads the folder's JSON files.
    ///
    /// # Errors
    /// [`FolderError`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if !path.is_dir() {
            return Err(FolderError::NotAFolder(path.to_owned()));
        }
        let config = path.join("config.json");
        let encoder =
            EncoderConfig::from_json(&read(&config)?).map_err(|problem| FolderError::Invalid {
                path: config,
                problem,
            })?;
        let modules = Modules::read(path)?;
        let prompts: PromptsFile =
            read_json(&path.join("config_sentence_transformers.json"))?.unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            pooling: modules.pooling,
            normalize: modules.normalize,
            max_sequence_tokens: max_sequence_tokens(path, &encoder)?,
            prompts: prompts
                .prompts
                .into_iter()
                .filter_map(|(name, text)| Some((name, text?)))
                .collect(),
            default_prompt: prompts.default_prompt_name,
            encoder,
        })
    }
}

/// The modules that follow the encoder.
#[derive(Default)]
struct Modules {
    pooling: Option<Pooling>,
    normalize: bool,
}

impl Modules {
    fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("modules.json");
        let Some(entries) = read_json::<Vec<ModuleEntry>>(&path)? else {
            let pooling = pooling(&folder.join("1_Pooling/config.json"))?;
            return Ok(Self {
                pooling,
                normalize: false,
            });
        };
        let mut modules = Self::default();
        for entry in entries {
            let kind = entry.kind.rsplit('.').next().unwrap_or_default();
            match kind {
                "Transformer" => {}
                "Pooling" => {
                    modules.pooling =
                        pooling(&inside(folder, &entry.path, &path)?.join("config.json"))?
                }
                "Normalize" => modules.normalize = true,
                other => {
                    let problem = format!(
                        "module \"{other}\" is not supported, supported are Transformer, Pooling and Normalize"
                    );
                    return Err(FolderError::Invalid { path, problem });
                }
            }
        }
        Ok(modules)
    }
}

/// A module's folder must lie within the model's.
fn inside(folder: &Path, relative: &str, file: &Path) -> Result<PathBuf, FolderError> {
    let plain = Path::new(relative)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    if plain {
        return Ok(folder.join(relative));
    }
    let problem = format!(
        "module path \"{relative}\" leaves the model folder, expected a plain relative path"
    );
    Err(FolderError::Invalid {
        path: file.to_owned(),
        problem,
    })
}

#[derive(Deserialize)]
struct ModuleEntry {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    /// The form that newer releases of sentence-transformers write.
    pooling_mode: Option<String>,
}

impl PoolingFile {
    fn modes(&self) -> Vec<&str> {
        let flags = [
            (self.pooling_mode_cls_token, "cls"),
            (self.pooling_mode_mean_tokens, "mean"),
            (self.pooling_mode_max_tokens, "max"),
            (self.pooling_mode_lasttoken, "lasttoken"),
            (
                self.pooling_mode_mean_sqrt_len_tokens,
                "mean_sqrt_len_tokens",
            ),
            (self.pooling_mode_weightedmean_tokens, "weightedmean"),
        ];
        let mut modes: Vec<_> = flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| *name)
            .collect();
        modes.extend(self.pooling_mode.as_deref());
        modes
    }
}

fn pooling(path: &Path) -> Result<Option<Pooling>, FolderError> {
    let Some(file) = read_json::<PoolingFile>(path)? else {
        return Ok(None);
    };
    match file.modes()[..] {
        ["cls"] => Ok(Some(Pooling::Cls)),
        ["mean"] => Ok(Some(Pooling::Mean)),
        ["max"] => Ok(Some(Pooling::Max)),
        ["lasttoken"] => Ok(Some(Pooling::Last)),
        ref modes => {
            let problem = format!(
                "pooling is \"{}\", supported is one of cls, mean, max and lasttoken",
                modes.join(" + ")
            );
            Err(FolderError::Invalid {
                path: path.to_owned(),
                problem,
            })
        }
    }
}

#[derive(Default, Deserialize)]
struct PromptsFile {
    #[serde(default)]
    prompts: BTreeMap<String, Option<String>>,
    default_prompt_name: Option<String>,
}

#[derive(Deserialize)]
struct SentenceBertFile {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct TokenizerConfigFile {
    /// A float in some files: `1e30` stands for "no limit".
    model_max_length: Option<f64>,
}

/// `sentence_bert_config.json` decides where it says something, else `tokenizer_config.json`; both within what the
/// position embedding allows.
fn max_sequence_tokens(folder: &Path, encoder: &EncoderConfig) -> Result<usize, FolderError> {
    let path = folder.join("sentence_bert_config.json");
    let stated = match read_json::<SentenceBertFile>(&path)?.and_then(|file| file.max_seq_length) {
        Some(0 | 1) => {
            let problem = "max_seq_length must be at least 2".into();
            return Err(FolderError::Invalid { path, problem });
        }
        Some(n) => Some(n),
        None => read_json::<TokenizerConfigFile>(&folder.join("tokenizer_config.json"))?
            .and_then(|file| file.model_max_length)
            .filter(|n| (2.0..1e9).contains(n))
            .map(|n| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked to be 2 to 1e9"
                )]
                let n = n as usize;
                n
            }),
    };
    let limit = encoder.max_sequence_tokens();
    Ok(stated.unwrap_or(limit).min(limit))
}

fn read(path: &Path) -> Result<String, FolderError> {
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
