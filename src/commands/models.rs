//! `embedgate models`: what is on the disk, where it is from, and whether it is right.

mod list;
mod remove;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use embedgate_config::{Config, Environment};
use embedgate_hub::{LOCK_FILE, Lock};

use self::{list::list, remove::remove, verify::check};
use super::{Failure, named_model::USUAL, pull::progress::bytes, say};
use crate::args::hub::ModelsCommand;

/// The ending that `pull` adds to a folder's name for the folder in which it works.
const UNFINISHED: &str = ".embedgate-pull";

pub(super) fn run(
    file: Option<&Path>,
    command: &ModelsCommand,
    environment: &Environment,
) -> Result<(), Failure> {
    // Where there is no configuration, what was pulled is on the disk all the same.
    let is_there = file.is_some() || Config::find(file, environment).is_ok();
    let config = match is_there {
        true => Config::load_without_models(file, environment)?,
        false => Config::default(),
    };
    let folders = |named: &[PathBuf]| -> Result<Vec<PathBuf>, Failure> {
        match named.is_empty() {
            true => Ok(all(&config)),
            false => named.iter().map(|named| resolve(named, &config)).collect(),
        }
    };
    match command {
        ModelsCommand::List => list(&config),
        ModelsCommand::Verify { models } => check(&folders(models)?, !models.is_empty()),
        ModelsCommand::Remove { models, force } => {
            let folders = folders(models)?;
            folders
                .iter()
                .try_for_each(|folder| remove(folder, *force, &config))
        }
        ModelsCommand::Lock { models } => {
            let mut folders = folders(models)?;
            if models.is_empty() {
                folders.retain(|folder| folder.is_dir() && !folder.join(LOCK_FILE).exists());
            }
            folders.iter().try_for_each(|folder| lock(folder))
        }
    }
}

/// The folder of what was named: a model of the configuration, or a folder.
fn resolve(named: &Path, config: &Config) -> Result<PathBuf, Failure> {
    let entry = named.to_str().and_then(|name| config.models.get(name));
    match entry {
        Some(entry) if named.exists() && !same(named, &entry.path) => {
            let (folder, of_config) = (named.display(), entry.path.display());
            Err(anyhow!(
                "{folder} is a folder here, and a model of the configuration in {of_config}: say ./{folder} or {of_config}"
            )
            .into())
        }
        Some(entry) => Ok(entry.path.clone()),
        None => Ok(named.to_owned()),
    }
}

fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    a == b || real(a).is_some_and(|a| Some(a) == real(b))
}

/// The folders of the configuration, and those that `pull` made here.
fn all(config: &Config) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    let of_config = config.models.values().map(|model| model.path.clone());
    let here = fs::read_dir(USUAL).into_iter().flatten().flatten();
    let here = here.map(|entry| entry.path());
    let here = here.filter(|folder| folder.join(LOCK_FILE).exists() || is_unfinished(folder));
    for folder in of_config.chain(here) {
        if !folders.iter().any(|known| same(known, &folder)) {
            folders.push(folder);
        }
    }
    folders.sort();
    folders
}

fn is_unfinished(folder: &Path) -> bool {
    folder.to_string_lossy().ends_with(UNFINISHED)
}

/// Writes the record of a folder as it is.
fn lock(folder: &Path) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Err(anyhow!("{} is no folder", folder.display()).into());
    }
    let lock = Lock::of_folder(folder).map_err(anyhow::Error::new)?;
    let all = lock.files.iter().map(|file| file.size).sum();
    Ok(say(&format!(
        "{}: {} files, {}, are in {LOCK_FILE} as they are now",
        folder.display(),
        lock.files.len(),
        bytes(all)
    ))?)
}
