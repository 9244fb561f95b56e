//! The module `LogitScore`.

use std::path::Path;

use serde::Deserialize;

use super::{invalid, missing};
use crate::{
    encoder::AnswerTokens,
    folder::{FolderError, read_json},
};

#[derive(Deserialize)]
struct LogitScoreFile {
    true_token_id: u32,
    false_token_id: Option<u32>,
    module_input_name: Option<String>,
}

/// Reads the module of a folder.
pub(super) fn read(folder: &Path) -> Result<AnswerTokens, FolderError> {
    let path = folder.join("config.json");
    let file: LogitScoreFile = read_json(&path)?.ok_or_else(|| missing(&path))?;
    match file.module_input_name.as_deref() {
        None | Some("causal_logits") => Ok(AnswerTokens {
            yes: file.true_token_id,
            no: file.false_token_id,
        }),
        Some(other) => {
            let problem =
                format!("module_input_name is \"{other}\", supported is \"causal_logits\"");
            Err(invalid(&path, problem))
        }
    }
}
