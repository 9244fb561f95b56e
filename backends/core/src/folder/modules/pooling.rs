//! The pooling module's `config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::{
    Pooling, PoolingMode,
    folder::{FolderError, read_json},
};

/// Reads the pooling, and whether a prompt's tokens are part of it; none where there is no such file.
pub(super) fn pooling(path: &Path) -> Result<Option<(Pooling, bool)>, FolderError> {
    let Some(file) = read_json::<PoolingFile>(path)? else {
        return Ok(None);
    };
    let include_prompt = file.include_prompt.unwrap_or(true);
    let modes = file.modes();
    let known = modes.iter().map(|mode| PoolingMode::of_name(mode));
    let known: Option<Vec<PoolingMode>> = known.collect();
    let pooling = known.and_then(|modes| Pooling::of_modes(&modes));
    match pooling {
        Some(pooling) => Ok(Some((pooling, include_prompt))),
        None => Err(FolderError::Invalid {
            path: path.to_owned(),
            problem: format!(
                "pooling is \"{}\", supported are cls, max, mean, mean_sqrt_len_tokens, weightedmean and lasttoken, each once",
                modes.join(" + ")
            ),
        }),
    }
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
    /// True when the prompt's tokens are pooled too.
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
            (self.pooling_mode_max_tokens, "max"),
            (self.pooling_mode_mean_tokens, "mean"),
            (
                self.pooling_mode_mean_sqrt_len_tokens,
                "mean_sqrt_len_tokens",
            ),
            (self.pooling_mode_weightedmean_tokens, "weightedmean"),
            (self.pooling_mode_lasttoken, "lasttoken"),
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
