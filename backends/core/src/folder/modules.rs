//! `modules.json` and the pooling module's `config.json`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{FolderError, read_json};
use crate::Pooling;

/// The modules that follow the encoder.
#[derive(Default)]
pub(super) struct Modules {
    pub(super) pooling: Option<Pooling>,
    pub(super) normalize: bool,
    /// Whether there is a `modules.json`.
    pub(super) stated: bool,
    /// Whether the prompt's tokens are left out of the pooling.
    pub(super) without_prompt: bool,
}

impl Modules {
    pub(super) fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("modules.json");
        let mut modules = Self::default();
        let Some(entries) = read_json::<Vec<ModuleEntry>>(&path)? else {
            modules.set_pooling(&folder.join("1_Pooling/config.json"))?;
            return Ok(modules);
        };
        modules.stated = true;
        for entry in entries {
            match entry.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    modules.set_pooling(&inside(folder, &entry.path, &path)?.join("config.json"))?
                }
                "Normalize" => modules.normalize = true,
                other => {
                    let supported = "supported are Transformer, Pooling and Normalize";
                    let problem = format!("module \"{other}\" is not supported, {supported}");
                    return Err(FolderError::Invalid { path, problem });
                }
            }
        }
        Ok(modules)
    }

    fn set_pooling(&mut self, path: &Path) -> Result<(), FolderError> {
        if let Some((pooling, include_prompt)) = pooling(path)? {
            (self.pooling, self.without_prompt) = (Some(pooling), !include_prompt);
        }
        Ok(())
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

#[derive(Default, Deserialize)]
#[serde(default)]
struct PoolingFile {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_lasttoken: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    /// The form that newer releases of sentence-transformers write; it wins over the flags.
    pooling_mode: Option<OneOrMany>,
    /// Whether the prompt's tokens are pooled too.
    include_prompt: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl PoolingFile {
    fn modes(self) -> Vec<String> {
        match self.pooling_mode {
            Some(OneOrMany::One(mode)) => return vec![mode],
            Some(OneOrMany::Many(modes)) => return modes,
            None => {}
        }
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
        let modes: Vec<_> = flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| (*name).to_owned())
            .collect();
        // As the reference does where no flag is set.
        if modes.is_empty() {
            vec!["mean".into()]
        } else {
            modes
        }
    }
}

/// What the pooling module says; none where there is no such file.
fn pooling(path: &Path) -> Result<Option<(Pooling, bool)>, FolderError> {
    let Some(file) = read_json::<PoolingFile>(path)? else {
        return Ok(None);
    };
    let include_prompt = file.include_prompt.unwrap_or(true);
    let modes = file.modes();
    let pooling = match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cls"] => Pooling::Cls,
        ["mean"] => Pooling::Mean,
        ["max"] => Pooling::Max,
        ["lasttoken"] => Pooling::Last,
        _ => {
            let problem = format!(
                "pooling is \"{}\", supported is one of cls, mean, max and lasttoken",
                modes.join(" + ")
            );
            return Err(FolderError::Invalid {
                path: path.to_owned(),
                problem,
            });
        }
    };
    Ok(Some((pooling, include_prompt)))
}
