//! Files of a model whose content the configuration states.

use std::{fs::File, io, path::Path};

use embedgate_config::ModelConfig;
use sha2::{Digest, Sha256};

use super::load::LoadError;

/// Reads every file that the model's key `sha256` names, and compares: 0.2 to 2 GB a second, by the processor.
///
/// # Errors
/// [`LoadError::Setting`] names the file, what it has and what it should have.
pub(super) fn check(config: &ModelConfig) -> Result<(), LoadError> {
    for (name, pinned) in &config.sha256 {
        let path = config.path.join(name);
        let shown = path.display();
        let found = sha256(&path)
            .map_err(|error| LoadError::Setting(format!("{shown}, which sha256 names: {error}")))?;
        if !found.eq_ignore_ascii_case(pinned) {
            return Err(LoadError::Setting(format!(
                "{shown} has sha256 {found}, and the configuration says {pinned}: the file is damaged or another one; \
                 fetch it again, or write the new sum where the change is meant"
            )));
        }
    }
    Ok(())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(format!("{:x}", hasher.finalize()))
}
