//! A copy of the tiny model that a test may damage.

use crate::{copy, embedgate, run, tiny_bge_m3, tiny_config};
use std::path::{Path, PathBuf};

/// A copy of the tiny model that a test may damage; its folder goes with it.
pub struct ModelCopy(tempfile::TempDir);

impl ModelCopy {
    /// A whole model.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&tiny_bge_m3(), folder.path());
        Self(folder)
    }

    /// The folder of the copy.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// A file of the copy, which need not be there.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Loads the copy as a server does, with the backend of this name; returns the exit code (0 for a model that is well) and
    /// what the program said.
    #[must_use]
    pub fn load(&self, backend: &str) -> (Option<i32>, String) {
        let config = tiny_config("")
            .replace(
                &format!("{:?}", tiny_bge_m3()),
                &format!("{:?}", self.0.path()),
            )
            .replace(
                "backend = { threads = 1 }",
                &format!("backend = {{ type = {backend:?} }}"),
            );
        std::fs::write(self.path("test.toml"), config).unwrap();
        // There is no text on standard input: the command ends when the model is loaded.
        let (code, _, errors) = run(embedgate()
            .args(["embed", "--config"])
            .arg(self.path("test.toml")));
        (code, errors)
    }
}
