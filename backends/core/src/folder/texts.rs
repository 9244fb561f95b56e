//! The processing of texts before and in the tokenizer: prompts, lower case, the longest sequence.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FolderError, read_json};
use crate::EncoderConfig;

/// The file `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
pub(super) struct PromptsFile {
    prompts: Option<BTreeMap<String, Option<String>>>,
    pub(super) default_prompt_name: Option<String>,
    truncate_dim: Option<Value>,
    max_active_dims: Option<Value>,
}

/// Vectors of more numbers are a broken file.
const MOST_DIMENSIONS: u64 = 1 << 24;

impl PromptsFile {
    /// The numbers of a vector that are kept, and the weights of a sparse one, where some are left out.
    pub(super) fn limits(&self) -> Result<[Option<usize>; 2], String> {
        let limit = |name: &str, value: &Option<Value>| {
            let Some(value) = value else {
                return Ok(None);
            };
            let n = value.as_u64().filter(|n| (1..=MOST_DIMENSIONS).contains(n));
            let n = n.and_then(|n| usize::try_from(n).ok());
            n.map(Some)
                .ok_or_else(|| format!("{name} is {value}, expected 1 to {MOST_DIMENSIONS}"))
        };
        Ok([
            limit("truncate_dim", &self.truncate_dim)?,
            limit("max_active_dims", &self.max_active_dims)?,
        ])
    }

    /// A prompt of null is an empty one, and so are the two that every model has where the file leaves them out.
    pub(super) fn texts(self) -> BTreeMap<String, String> {
        let mut texts: BTreeMap<_, _> = ["query", "document"]
            .map(|name| (name.to_owned(), String::new()))
            .into();
        let stated = self.prompts.unwrap_or_default().into_iter();
        texts.extend(stated.map(|(name, text)| (name, text.unwrap_or_default())));
        texts
    }
}

/// Names that the file had for different architectures.
const SENTENCE_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// The file `sentence_bert_config.json`, or another of its names.
#[derive(Default, Deserialize)]
pub(super) struct SentenceFile {
    max_seq_length: Option<usize>,
    #[serde(default)]
    pub(super) do_lower_case: bool,
    /// The kinds of inputs that the model takes, each with what is done to it.
    modality_config: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    processing_kwargs: BTreeMap<String, Map<String, Value>>,
    /// All else.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Fields that are handed to transformers, which they may change in any way.
const HANDED_ON: [&str; 8] = [
    "model_args",
    "model_kwargs",
    "config_args",
    "config_kwargs",
    "tokenizer_args",
    "tokenizer_kwargs",
    "processor_args",
    "processor_kwargs",
];
/// The arguments of templates that say how their outcome is read, which is done in one way here.
const OF_READING: [&str; 14] = [
    "chat_template",
    "continue_final_message",
    "documents",
    "return_assistant_tokens_mask",
    "sanitize_control_tokens",
    "tokenizer_kwargs",
    "tools",
    "restore_suffix",
    "max_length",
    "truncation",
    "padding",
    "return_tensors",
    "tokenize",
    "return_dict",
];
/// The arguments that are harmless: each chooses an implementation, or a format of numbers.
const HARMLESS: [&str; 8] = [
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "trust_remote_code",
    "use_memory_efficient_attention",
    "unpad_inputs",
    "add_pooling_layer",
    "use_fast",
];

impl SentenceFile {
    /// Refuses what would change the model or its tokenizer.
    fn check(&self) -> Result<(), String> {
        for (name, value) in &self.other {
            let Some(fields) = value
                .as_object()
                .filter(|_| HANDED_ON.contains(&name.as_str()))
            else {
                continue;
            };
            if let Some(field) = fields
                .keys()
                .find(|field| !HARMLESS.contains(&field.as_str()))
            {
                return Err(format!("{name} has {field}, which is not supported"));
            }
        }
        for (name, fields) in &self.processing_kwargs {
            let is_refused =
                |field: &&String| name != "chat_template" || OF_READING.contains(&field.as_str());
            if let Some(field) = fields.keys().find(is_refused) {
                return Err(format!(
                    "processing_kwargs.{name} has {field}, which is not supported"
                ));
            }
        }
        Ok(())
    }

    /// Returns true when texts go through the folder's template of conversations, where it has one; none where the file does not
    /// say.
    pub(super) fn takes_messages(&self) -> Option<bool> {
        let kinds = self.modality_config.as_ref()?;
        Some(kinds.contains_key("message"))
    }

    /// The variables of that template.
    pub(super) fn template_variables(&self) -> Map<String, Value> {
        let variables = self.processing_kwargs.get("chat_template");
        variables.cloned().unwrap_or_default()
    }
}

/// The first of these files that is there, and its path for errors.
pub(super) fn sentence_file(folder: &Path) -> Result<(PathBuf, SentenceFile), FolderError> {
    let path = SENTENCE_FILES
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.exists());
    let Some(path) = path else {
        return Ok((folder.to_owned(), SentenceFile::default()));
    };
    let file: SentenceFile = read_json(&path)?.unwrap_or_default();
    file.check().map_err(|problem| FolderError::Invalid {
        path: path.clone(),
        problem,
    })?;
    Ok((path, file))
}

/// The sentence file decides where it says something, else `tokenizer_config.json`; both within what the position
/// embedding allows.
pub(super) fn max_sequence_tokens(
    path: PathBuf,
    file: &SentenceFile,
    of_tokenizer: Option<f64>,
    encoder: &EncoderConfig,
) -> Result<usize, FolderError> {
    let stated = match file.max_seq_length {
        Some(0 | 1) => {
            let problem = "max_seq_length must be at least 2".into();
            return Err(FolderError::Invalid { path, problem });
        }
        Some(n) => Some(n),
        None => of_tokenizer.filter(|n| (2.0..1e9).contains(n)).map(|n| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be 2 to 1e9"
            )]
            let n = n as usize;
            n
        }),
    };
    let limit = encoder.max_sequence_tokens;
    Ok(stated.unwrap_or(limit).min(limit))
}
