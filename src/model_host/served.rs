//! Remembers which models were served under which name: vectors of another model cannot be compared with those that an index
//! has of the one before.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::whole_file;

/// The models by name, and by the configuration that names them.
type Known = BTreeMap<String, BTreeMap<String, String>>;

/// The file in `server.state_dir` that remembers them.
pub(super) struct Served {
    file: Option<PathBuf>,
    /// Two gateways on one machine have names of their own.
    config: String,
    lock: Mutex<()>,
}

impl Served {
    pub(super) fn new(file: Option<PathBuf>, config: &Path) -> Self {
        let config = config.canonicalize().unwrap_or_else(|_| config.to_owned());
        Self {
            file,
            config: config.display().to_string(),
            lock: Mutex::default(),
        }
    }

    /// Warns where another model was served under this name before, and remembers this one.
    pub(super) fn note(&self, name: &str, space: blake3::Hash) {
        let Some(file) = &self.file else {
            return;
        };
        let _one_at_a_time = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is damaged, or not there, remembers nothing.
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut known: Known = serde_json::from_str(&text).unwrap_or_default();
        // Configurations that are gone need not be remembered.
        known.retain(|config, _| *config == self.config || Path::new(config).exists());
        let names = known.entry(self.config.clone()).or_default();
        let space = space.to_hex().to_string();
        let before = names.insert(name.to_owned(), space.clone());
        if before.as_ref() == Some(&space) {
            return;
        }
        if before.is_some() {
            tracing::warn!(
                model.name = name,
                "model {name} is another than the one that was served under this name before: its vectors cannot be compared with \
                 those of before; index again what an index holds, or give it another name"
            );
        }
        if let Err(error) = write(file, &known) {
            tracing::warn!(
                "{} cannot be written: at the next start it is not known which models were served: {error}",
                file.display()
            );
        }
    }
}

fn write(file: &Path, known: &Known) -> io::Result<()> {
    fs::create_dir_all(whole_file::folder(file))?;
    // Another gateway may have the same folder.
    whole_file::write(file, &serde_json::to_vec_pretty(known)?)
}
