//! `embedgate models`: what is on the disk, where it is from, and whether it is right.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use embedgate_config::{Config, Environment};
use embedgate_hub::{LOCK_FILE, Lock, Verdict, verify};
use embedgate_tools::table::Table;

use super::{Failure, place::USUAL, pull::progress::bytes, say};
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
        true => Config::load_for_a_fetch(file, environment)?,
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

fn list(config: &Config) -> Result<(), Failure> {
    let header = ["folder", "served as", "files", "from", "revision"].map(str::to_owned);
    let mut table = Table::new(header);
    for folder in all(config) {
        let only = |files: &str| [files.to_owned(), String::new(), String::new()];
        let [files, from, revision] = match Lock::read(&folder) {
            _ if is_unfinished(&folder) => only("not fetched to its end"),
            Ok(Some(lock)) => {
                let all = lock.files.iter().map(|file| file.size).sum();
                let files = format!("{}, {}", lock.files.len(), bytes(all));
                let from = match lock.is_local() {
                    true => lock.source,
                    false => format!("{} of {}", lock.source, lock.endpoint),
                };
                [files, from, lock.commit]
            }
            Ok(None) if folder.is_dir() => only("not fetched by pull"),
            Ok(None) => only("missing"),
            Err(error) => only(&error.to_string()),
        };
        let models = config.models.iter();
        let models = models.filter(|(_, model)| same(&model.path, &folder));
        let names: Vec<&str> = models.map(|(name, _)| name.as_str()).collect();
        let folder = folder.display().to_string();
        table.row([folder, names.join(", "), files, from, revision]);
    }
    Ok(say(&table.to_string())?)
}

/// Reads every byte of fetched models. Fails where one is wrong, or where a folder that was named is not known.
fn check(folders: &[PathBuf], are_named: bool) -> Result<(), Failure> {
    let (mut n_wrong, mut n_unknown) = (0, 0);
    for folder in folders {
        let shown = folder.display();
        let lock = match Lock::read(folder) {
            _ if !folder.is_dir() => {
                say(&format!(
                    "{shown} is not there: `embedgate pull` fetches it"
                ))?;
                n_wrong += 1;
                continue;
            }
            _ if is_unfinished(folder) => continue,
            Ok(Some(lock)) => lock,
            Ok(None) => {
                say(&format!(
                    "{shown}: not fetched by pull: it has no {LOCK_FILE}"
                ))?;
                n_unknown += 1;
                continue;
            }
            Err(error) => {
                say(&error.to_string())?;
                n_wrong += 1;
                continue;
            }
        };
        let mut n_right = 0;
        for file in verify(folder, &lock) {
            let problem = match file {
                Ok((_, Verdict::Right)) => {
                    n_right += 1;
                    continue;
                }
                Ok((file, verdict)) => {
                    let path = folder.join(&file.path);
                    let path = path.display();
                    match verdict {
                        Verdict::Length(found) => {
                            format!("{path} has {found} bytes, not {}", file.size)
                        }
                        Verdict::Bytes => format!("{path} has other bytes than the record says"),
                        Verdict::Missing | Verdict::Right => format!("{path} is missing"),
                    }
                }
                Err(error) => error.to_string(),
            };
            n_wrong += 1;
            say(&problem)?;
        }
        let n = lock.files.len();
        say(&format!("{shown}: {n_right} of {n} files are right"))?;
    }
    match n_wrong {
        0 if n_unknown > 0 && are_named => Err(anyhow!(
            "of what has no record it is not known what is right: `embedgate models lock` writes one"
        )
        .into()),
        0 => Ok(()),
        _ => Err(
            anyhow!("not all is right: `embedgate pull` fetches what is wrong or missing").into(),
        ),
    }
}

/// Deletes the files of a model: those that a pull has fetched, or all.
fn remove(folder: &Path, force: bool, config: &Config) -> Result<(), Failure> {
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

fn is_model(folder: &Path) -> bool {
    ["config.json", "tokenizer.json"]
        .iter()
        .all(|name| folder.join(name).is_file())
}

/// Returns true when a folder is the working folder, or above it.
fn holds_this(folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(Path::new("."))
        .zip(real(folder))
        .is_some_and(|(here, folder)| here.starts_with(folder))
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
