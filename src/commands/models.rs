//! `embedgate models`: what is on the disk, where it is from, and whether it is right.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use embedgate_config::{Config, ConfigError, Environment};
use embedgate_hub::{LOCK_FILE, Lock, Verdict, verify};
use embedgate_tools::table::Table;

use super::{Failure, pull::progress::bytes, say};
use crate::args::hub::ModelsCommand;

/// Where `pull` puts models that have no place of their own.
const USUAL: &str = "models";

/// The names by which a folder is served.
type Served = BTreeMap<PathBuf, Vec<String>>;

pub(super) fn run(
    file: Option<&Path>,
    command: &ModelsCommand,
    environment: &Environment,
) -> Result<(), Failure> {
    let named = || -> Result<Served, ConfigError> {
        let config = Config::load_for_a_fetch(file, environment)?;
        Ok(served(config))
    };
    match command {
        ModelsCommand::List => {
            // Where there is no configuration, what was pulled is on the disk all the same.
            let is_there = file.is_some() || Config::find(file, environment).is_ok();
            list(&if is_there { named()? } else { Served::new() })
        }
        ModelsCommand::Verify { folders } if folders.is_empty() => {
            check(named()?.into_keys(), false)
        }
        ModelsCommand::Verify { folders } => check(folders.iter().cloned(), true),
        ModelsCommand::Remove { models, force } => {
            let config = Config::load_for_a_fetch(file, environment);
            let config = config.unwrap_or_default();
            models
                .iter()
                .try_for_each(|model| remove(model, *force, &config))
        }
        ModelsCommand::Lock { folders } if folders.is_empty() => {
            let has_none = |folder: &PathBuf| !folder.join(LOCK_FILE).exists();
            let folders = named()?.into_keys().filter(has_none);
            folders.into_iter().try_for_each(|folder| lock(&folder))
        }
        ModelsCommand::Lock { folders } => folders.iter().try_for_each(|folder| lock(folder)),
    }
}

fn served(config: Config) -> Served {
    let mut served = Served::new();
    for (name, model) in config.models {
        served.entry(model.path).or_default().push(name);
    }
    served
}

/// The folders of the configuration, and those that `pull` made here.
fn list(served: &Served) -> Result<(), Failure> {
    let mut folders: Vec<PathBuf> = served.keys().cloned().collect();
    let same = |a: &Path, b: &Path| {
        let real = |path: &Path| path.canonicalize().ok();
        a == b || real(a).is_some_and(|a| Some(a) == real(b))
    };
    for entry in fs::read_dir(USUAL).into_iter().flatten().flatten() {
        let folder = entry.path();
        let is_new = !folders.iter().any(|known| same(known, &folder));
        if is_new && folder.join(LOCK_FILE).exists() {
            folders.push(folder);
        }
    }
    folders.sort();
    let header = ["folder", "served as", "files", "from", "revision"].map(str::to_owned);
    let mut table = Table::new(header);
    for folder in folders {
        let lock = Lock::read(&folder).map_err(anyhow::Error::new)?;
        let [files, from, revision] = match lock {
            Some(lock) => {
                let all = lock.files.iter().map(|file| file.size).sum();
                let files = format!("{}, {}", lock.files.len(), bytes(all));
                let from = match lock.endpoint.is_empty() {
                    true => lock.source,
                    false => format!("{} of {}", lock.source, lock.endpoint),
                };
                [files, from, lock.commit]
            }
            None if folder.is_dir() => ["not fetched by pull".into(), String::new(), String::new()],
            None => ["missing".into(), String::new(), String::new()],
        };
        let names = served
            .get(&folder)
            .map_or(String::new(), |names| names.join(", "));
        table.row([folder.display().to_string(), names, files, from, revision]);
    }
    Ok(say(&table.to_string())?)
}

/// Reads every byte of fetched models. Fails where one is wrong, or where a folder that was named is not known.
fn check(folders: impl Iterator<Item = PathBuf>, is_asked: bool) -> Result<(), Failure> {
    let (mut n_wrong, mut n_unknown) = (0, 0);
    for folder in folders {
        let shown = folder.display();
        let lock = match Lock::read(&folder) {
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
        for file in verify(&folder, &lock) {
            let (file, verdict) = file.map_err(anyhow::Error::new)?;
            let path = folder.join(&file.path);
            let path = path.display();
            let problem = match verdict {
                Verdict::Right => {
                    n_right += 1;
                    continue;
                }
                Verdict::Missing => format!("{path} is missing"),
                Verdict::Length(found) => format!("{path} has {found} bytes, not {}", file.size),
                Verdict::Bytes => format!("{path} has other bytes than the record says"),
            };
            n_wrong += 1;
            say(&problem)?;
        }
        say(&format!(
            "{shown}: {n_right} of {} files are right",
            lock.files.len()
        ))?;
    }
    match n_wrong {
        0 if n_unknown > 0 && is_asked => {
            Err(anyhow!("of what has no record it is not known what is right: `embedgate models lock` writes one").into())
        }
        0 => Ok(()),
        _ => Err(
            anyhow!("not all is right: `embedgate pull` fetches what is wrong or missing").into(),
        ),
    }
}

/// Deletes the files of a model: those of its record, or all.
fn remove(model: &Path, force: bool, config: &Config) -> Result<(), Failure> {
    let named = model.to_str().and_then(|name| config.models.get(name));
    let folder = named.map_or(model, |entry| &entry.path);
    let shown = folder.display();
    let lock = Lock::read(folder).map_err(anyhow::Error::new)?;
    match lock {
        Some(lock) => {
            let n_left = lock.remove(folder).map_err(anyhow::Error::new)?;
            let left = match n_left {
                0 => String::new(),
                n => format!("; {n} files that no pull has fetched are still there"),
            };
            say(&format!(
                "{shown}: {} files removed{left}",
                lock.files.len()
            ))?;
        }
        None if !folder.is_dir() => {
            return Err(anyhow!(
                "{shown} is no folder, nor the name of a model of the configuration"
            )
            .into());
        }
        None if force && folder.join("config.json").exists() => {
            let removed = fs::remove_dir_all(folder);
            removed.map_err(|error| anyhow!("{shown} cannot be removed: {error}"))?;
            say(&format!("{shown} removed"))?;
        }
        None if force => {
            return Err(anyhow!("{shown} is no model's folder: it has no config.json").into());
        }
        None => {
            return Err(anyhow!(
                "{shown} was not fetched by pull: --force removes it with all that is in it"
            )
            .into());
        }
    }
    for (name, _) in config
        .models
        .iter()
        .filter(|(_, entry)| entry.path == folder)
    {
        say(&format!(
            "models.{name} of the configuration names it still"
        ))?;
    }
    Ok(())
}

/// Writes the record of a folder as it is.
fn lock(folder: &Path) -> Result<(), Failure> {
    let lock = Lock::of_folder(folder).map_err(anyhow::Error::new)?;
    let all = lock.files.iter().map(|file| file.size).sum();
    Ok(say(&format!(
        "{}: {} files, {}, are in {LOCK_FILE} as they are now",
        folder.display(),
        lock.files.len(),
        bytes(all)
    ))?)
}
