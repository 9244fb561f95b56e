//! The template of a conversation, through which rerankers that are language models read both texts of a pair.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FolderError, read, read_json};

/// The template that a folder has for conversations, in the language of Jinja.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatTemplate {
    /// Its source.
    pub source: String,
    /// Variables that it is rendered with, beside the messages.
    pub variables: Map<String, Value>,
}

#[derive(Default, Deserialize)]
struct TokenizerFile {
    chat_template: Option<Templates>,
}

/// One template, or several by their names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// Reads the folder's template; none where it has none.
///
/// Source: transformers 5.24, `tokenization_utils_base.py`: the file of its own wins.
pub(super) fn source(folder: &Path) -> Result<Option<String>, FolderError> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        return read(&path).map(Some);
    }
    let file: TokenizerFile = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    Ok(match file.chat_template {
        None => None,
        Some(Templates::One(source)) => Some(source),
        Some(Templates::Named(all)) => {
            let default = all.into_iter().find(|named| named.name == "default");
            default.map(|named| named.template)
        }
    })
}
