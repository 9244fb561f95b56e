//! The module `SpladePooling`.

use std::path::Path;

use serde::Deserialize;

use super::{invalid, missing};
use crate::{
    folder::{FolderError, read_json},
    splade::{SpladePooling, SpladeStrategy},
};

#[derive(Deserialize)]
struct SpladeFile {
    pooling_strategy: Option<String>,
    activation_function: Option<String>,
}

/// Reads the module of a folder.
pub(super) fn read(folder: &Path) -> Result<SpladePooling, FolderError> {
    let path = folder.join("config.json");
    let file: SpladeFile = read_json(&path)?.ok_or_else(|| missing(&path))?;
    let strategy = match file.pooling_strategy.as_deref() {
        None | Some("max") => SpladeStrategy::Max,
        Some("sum") => SpladeStrategy::Sum,
        Some(other) => {
            let problem =
                format!("pooling_strategy is \"{other}\", supported is \"max\" or \"sum\"");
            return Err(invalid(&path, problem));
        }
    };
    let is_twice = match file.activation_function.as_deref() {
        None | Some("relu") => false,
        Some("log1p_relu") => true,
        Some(other) => {
            let problem = format!(
                "activation_function is \"{other}\", supported is \"relu\" or \"log1p_relu\""
            );
            return Err(invalid(&path, problem));
        }
    };
    Ok(SpladePooling { strategy, is_twice })
}
