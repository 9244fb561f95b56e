//! The folder in which a model is written and checked, before it has its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use embedgate_onnx::convert::Files;

use crate::whole_file;

/// A folder beside the output, in which the model is written and checked; removed unless published.
pub(super) struct Partial(pub(super) PathBuf);

impl Partial {
    /// Makes the folder.
    pub(super) fn create(output: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(".embedgate-convert-")
            .tempdir_in(whole_file::folder(output))
            .with_context(|| format!("cannot write beside {}", output.display()))?;
        // Kept, so that a folder that cannot be removed is said below.
        Ok(Self(folder.keep()))
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
