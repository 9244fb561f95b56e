//! The model that a command line names: a folder, or a model of a hub, which has a usual folder.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use embedgate_config::Source;

/// The folder of models that were given no folder of their own.
pub(super) const USUAL: &str = "models";

/// A model that was named.
pub(super) struct NamedModel {
    /// The model's folder.
    pub(super) path: String,
    /// The model on a hub; none when a folder was named.
    pub(super) source: Option<Source>,
}

impl NamedModel {
    /// Finds the model of a name.
    ///
    /// # Errors
    /// When it is neither a folder nor the name of a model of a hub.
    pub(super) fn of(named: &str) -> anyhow::Result<Self> {
        if Path::new(named).is_dir() {
            return Ok(Self {
                path: named.to_owned(),
                source: None,
            });
        }
        // A folder was meant where the first part is one.
        if let Some((first, name)) = named.split_once('/')
            && (first == USUAL || Path::new(first).exists())
        {
            return Err(anyhow!(
                "there is no folder {named}: `embedgate pull OWNER/{name} --to {named}` fetches a model into it"
            ));
        }
        let source: Source = named
            .parse()
            .map_err(|problem| anyhow!("{named} is no folder, nor a model of a hub: {problem}"))?;
        Ok(Self {
            path: usual_folder(&source).display().to_string(),
            source: Some(source),
        })
    }

    /// The last part of the model's name, or of its folder.
    pub(super) fn name(&self) -> String {
        if let Some(source) = &self.source {
            return source.name().to_owned();
        }
        let path = Path::new(&self.path);
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = real.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// The folder of a model of a hub when none is named.
pub(super) fn usual_folder(source: &Source) -> PathBuf {
    Path::new(USUAL).join(source.name())
}
