//! Keeps what was measured in files, for the next start.

use std::path::{Path, PathBuf};

use embedgate_core::cores;
use serde::{Serialize, de::DeserializeOwned};

/// The file of one measurement, named by what was measured.
#[derive(Clone, Debug)]
pub(super) struct KeptFile(PathBuf);

impl KeptFile {
    /// The file for what is measured of something, by this program on this machine.
    #[must_use]
    pub(super) fn new(folder: &Path, what: &str, of: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("embedgate 2026-11 measurement");
        let machine = cores::processor();
        let program = env!("CARGO_PKG_VERSION");
        for part in of
            .iter()
            .copied()
            .chain([program.as_bytes(), machine.as_bytes()])
        {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let name = hasher.finalize().to_hex();
        Self(folder.join(format!("{what}-{}.json", &name[..16])))
    }

    /// What is kept; none when there is nothing that can be read.
    #[must_use]
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&std::fs::read(&self.0).ok()?).ok()
    }

    /// Keeps a measurement. That it cannot is no fault: it is measured again at the next start.
    pub(super) fn write<T: Serialize>(&self, measured: &T) {
        let write = || -> std::io::Result<()> {
            let folder = self.0.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let mut temporary = self.0.clone().into_os_string();
            temporary.push(format!(".{}", std::process::id()));
            std::fs::write(&temporary, serde_json::to_vec(measured)?)?;
            std::fs::rename(&temporary, &self.0)
        };
        if let Err(error) = write() {
            let path = self.0.display();
            tracing::warn!(
                error = %error,
                "{path} cannot be written: {error}; every start measures again, see server.state_dir"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_kept_and_a_broken_file_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let new = |of: &[&[u8]]| KeptFile::new(&folder.path().join("new"), "speed", of);
        let file = new(&[b"m", b"2"]);
        assert_eq!(file.read::<Vec<f64>>(), None);
        file.write(&[1.5, 2.0]);
        assert_eq!(file.read(), Some(vec![1.5, 2.0]));
        assert_eq!(new(&[b"m2", b""]).read::<Vec<f64>>(), None);
        std::fs::write(&file.0, "[1.5,").unwrap();
        assert_eq!(file.read::<Vec<f64>>(), None);
    }
}
