//! `embedgate models remove`: deletes what a pull has fetched, or a whole folder where that is forced.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use embedgate_config::Config;
use embedgate_hub::Lock;

use super::{Failure, UNFINISHED, is_unfinished, say};

/// Deletes the files of a model: those that a pull has fetched, or all.
pub(super) fn remove(folder: &Path, force: bool, config: &Config) -> Result<(), Failure> {
    let shown = folder.display();
    let refused = |problem: &str| Err(anyhow!("{shown} {problem}").into());
    let mut unfinished = folder.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let removed = |folder: &Path| {
        let removed = fs::remove_dir_all(folder);
        removed.map_err(|error| anyhow!("{} cannot be removed: {error}", folder.display()))
    };
    let lock = Lock::read(folder).map_err(anyhow::Error::new)?;
    match lock.filter(|lock| !lock.is_local()) {
        Some(lock) => {
            let n_left = lock.remove(folder).map_err(anyhow::Error::new)?;
            let left = match n_left {
                0 => String::new(),
                n => format!("; {n} files that no pull has fetched are still there"),
            };
            let n = lock.files.len();
            say(&format!("{shown}: {n} files removed{left}"))?;
        }
        None if is_unfinished(folder) && folder.is_dir() => {
            removed(folder)?;
            say(&format!("{shown} removed"))?;
        }
        None if !folder.is_dir() && unfinished.is_dir() => {
            removed(&unfinished)?;
            say(&format!("{} removed", unfinished.display()))?;
        }
        None if !folder.is_dir() => return refused("is not there"),
        None if !force => {
            return refused("was not fetched by pull: --force removes it with all that is in it");
        }
        None if !is_model(folder) => {
            return refused("is no model's folder: a model has config.json and tokenizer.json");
        }
        None if folder.join(".git").exists() || holds_this(folder) => {
            return refused(
                "is a repository, or the folder that this is run in: remove it by hand",
            );
        }
        None => {
            removed(folder)?;
            say(&format!("{shown} removed"))?;
        }
    }
    let models = config.models.iter();
    for (name, _) in models.filter(|(_, entry)| entry.path == folder) {
        say(&format!(
            "models.{name} of the configuration names it still"
        ))?;
    }
    Ok(())
}

/// A folder with a vocabulary too: other programs have a `config.json`.
fn is_model(folder: &Path) -> bool {
    let has = |name: &&str| folder.join(name).is_file();
    let vocabularies = ["tokenizer.json", "vocab.txt", "vocab.json"];
    embedgate_core::is_model_folder(folder)
        && (vocabularies.iter().any(has) || has(&"modules.json"))
}

/// Returns true when a folder is the working folder, or above it.
fn holds_this(folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(Path::new("."))
        .zip(real(folder))
        .is_some_and(|(here, folder)| here.starts_with(folder))
}
