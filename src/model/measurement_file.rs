//! Keeps what was measured in files, for the next start.

use std::path::{Path, PathBuf};

use embedgate_core::machine::cores;
use serde::{Serialize, de::DeserializeOwned};

use crate::whole_file;

/// The file of one measurement, named by what was measured; none where nothing is kept.
#[derive(Clone, Debug)]
pub(super) struct MeasurementFile(Option<PathBuf>);

impl MeasurementFile {
    /// The file for what is measured of something, by this program on this machine.
    #[must_use]
    pub(super) fn new(folder: Option<&Path>, what: &str, of: &[&[u8]]) -> Self {
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
        Self(folder.map(|folder| folder.join(format!("{what}-{}.json", &name[..16]))))
    }

    /// Reads the kept measurement; none when there is no file that can be read.
    #[must_use]
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&std::fs::read(self.0.as_ref()?).ok()?).ok()
    }

    /// Keeps a measurement. That it cannot is no fault: it is measured again at the next start.
    pub(super) fn write<T: Serialize>(&self, measured: &T) {
        let Some(path) = &self.0 else {
            return;
        };
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(whole_file::folder(path))?;
            whole_file::write(path, &serde_json::to_vec(measured)?)
        };
        if let Err(error) = write() {
            let path = path.display();
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
        let in_folder = folder.path().join("new");
        let new = |of: &[&[u8]]| MeasurementFile::new(Some(&in_folder), "speed", of);
        let file = new(&[b"m", b"2"]);
        assert_eq!(file.read::<Vec<f64>>(), None);
        file.write(&[1.5, 2.0]);
        assert_eq!(file.read(), Some(vec![1.5, 2.0]));
        assert_eq!(new(&[b"m2", b""]).read::<Vec<f64>>(), None);
        std::fs::write(file.0.as_ref().unwrap(), "[1.5,").unwrap();
        assert_eq!(file.read::<Vec<f64>>(), None);
        let nowhere = MeasurementFile::new(None, "speed", &[]);
        nowhere.write(&[1.5]);
        assert_eq!(nowhere.read::<Vec<f64>>(), None);
    }
}
