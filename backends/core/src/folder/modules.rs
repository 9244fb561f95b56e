//! `modules.json`.

mod pooling;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::pooling::pooling;
use super::{FolderError, read_json};
use crate::Pooling;

/// Modules that are obeyed, in the order in which they come.
const SUPPORTED: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

/// The modules that follow the encoder.
#[derive(Default)]
pub(super) struct Modules {
    pub(super) pooling: Option<Pooling>,
    pub(super) normalize: bool,
    /// True when there is a `modules.json`.
    pub(super) stated: bool,
    /// True when the prompt's tokens are left out of the pooling.
    pub(super) without_prompt: bool,
}

impl Modules {
    /// Reads the files; without `modules.json` the pooling module is where it usually lies.
    pub(super) fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join("modules.json");
        let mut modules = Self::default();
        let Some(entries) = read_json::<Vec<ModuleEntry>>(&path)? else {
            modules.set_pooling(&folder.join("1_Pooling/config.json"))?;
            return Ok(modules);
        };
        modules.stated = true;
        let invalid = |problem: String| FolderError::Invalid {
            path: path.clone(),
            problem,
        };
        let kinds: Vec<&str> = entries.iter().map(ModuleEntry::kind).collect();
        if let Some(other) = kinds.iter().find(|kind| !SUPPORTED.contains(kind)) {
            let supported =
                "supported are Transformer, Pooling and Normalize of sentence-transformers";
            return Err(invalid(format!(
                "module \"{other}\" is not supported, {supported}"
            )));
        }
        if !kinds.is_sorted_by_key(|kind| SUPPORTED.iter().position(|k| k == kind))
            || kinds.first() != Some(&"Transformer")
            || SUPPORTED[..2]
                .iter()
                .any(|kind| kinds.iter().filter(|k| *k == kind).count() > 1)
        {
            return Err(invalid(format!(
                "the modules are {}, supported is Transformer, then Pooling, then Normalize, once each",
                kinds.join(", ")
            )));
        }
        for (entry, kind) in entries.iter().zip(kinds) {
            match kind {
                "Transformer" if !matches!(entry.path.as_str(), "" | ".") => {
                    return Err(invalid(format!(
                        "module \"Transformer\" lies in {:?}, supported is the model's folder itself: move its files there, \
                         and set the path to \"\"",
                        entry.path
                    )));
                }
                "Pooling" => {
                    let config = inside(folder, &entry.path, &path)?.join("config.json");
                    modules.set_pooling(&config)?;
                    if modules.pooling.is_none() {
                        return Err(invalid(format!(
                            "names the module \"Pooling\" in {:?}, and {} is not there: download it, since it says how token \
                             vectors become one",
                            entry.path,
                            config.display()
                        )));
                    }
                }
                "Normalize" => modules.normalize = true,
                _ => {}
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

impl ModuleEntry {
    /// The kind's last word, where it is one of sentence-transformers' own; else all of it.
    fn kind(&self) -> &str {
        let own = self.kind.strip_prefix("sentence_transformers.");
        own.and_then(|kind| kind.rsplit('.').next())
            .unwrap_or(&self.kind)
    }
}
