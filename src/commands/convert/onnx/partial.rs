//! The folder in which a model is written and checked, before it has its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use embedgate_onnx::convert::Files;

/// A folder beside the output, in which the model is written and checked; removed unless published.
pub(super) struct Partial(pub(super) PathBuf);

impl Partial {
    /// Makes the folder.
    pub(super) fn create(output: &Path) -> anyhow::Result<Self> {
        let parent = output
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let name = format!(".embedgate-convert-{}", std::process::id());
        let path = parent.join(name);
        fs::create_dir(&path)
            .with_context(|| format!("cannot write beside {}", output.display()))?;
        Ok(Self(path))
    }

    /// Moves both files into place. At no time does a model file stand beside another model's data.
    pub(super) fn publish(&self, output: &Path, files: Files) -> anyhow::Result<()> {
        fs::create_dir_all(output).with_context(|| output.display().to_string())?;
        let (model, data) = (output.join(files.model), output.join(files.data));
        match fs::remove_file(&model) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| model.display().to_string());
            }
            _ => {}
        }
        fs::rename(self.0.join(files.data), &data).with_context(|| data.display().to_string())?;
        fs::rename(self.0.join(files.model), &model)
            .with_context(|| model.display().to_string())?;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(error = %error, "cannot remove {}", self.0.display());
        }
    }
}
