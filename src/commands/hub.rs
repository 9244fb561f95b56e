//! `embedgate pull` and `embedgate models`.

mod progress;
mod settings;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use embedgate_config::{Config, Environment, LogLevel};
use embedgate_hub::{Lock, Pulled, Request, Selection, Verdict, verify};
use embedgate_tools::table::Table;

use self::progress::Shown;
use super::{Failure, runtime, start_log};
use crate::args::hub::{ModelsCommand, PullArgs};

pub(super) fn pull(args: &PullArgs, environment: &Environment) -> Result<(), Failure> {
    start_log(LogLevel::Warn);
    let settings = settings::settings(args, environment)?;
    let target = args
        .to
        .clone()
        .unwrap_or_else(|| Path::new("models").join(args.source.name()));
    let request = Request {
        source: args.source.clone(),
        target: target.clone(),
        selection: Selection {
            all: args.all,
            onnx: args.onnx,
            include: args.include.clone(),
        },
        is_dry_run: args.dry_run,
    };
    let shown = Shown::new(args.dry_run);
    let runtime = runtime()?;
    let pulled = runtime.block_on(async {
        tokio::select! {
            pulled = embedgate_hub::pull(&request, settings, &shown) => pulled.map_err(anyhow::Error::new),
            _ = tokio::signal::ctrl_c() => Err(anyhow!("stopped: the same command goes on where it was")),
        }
    });
    // A hash that is computed is waited for by nobody.
    runtime.shutdown_background();
    shown.end();
    let Pulled { lock, n_kept } = pulled?;
    let bytes: u64 = lock.files.iter().map(|file| file.size).sum();
    let (n, size, commit) = (lock.files.len(), progress::bytes(bytes), &lock.commit);
    let from = format!("{} at {commit} of {}", lock.source, lock.endpoint);
    if args.dry_run {
        for file in &lock.files {
            say(&format!(
                "{:>10}  {}",
                progress::bytes(file.size),
                file.path.display()
            ))?;
        }
        return Ok(say(&format!("{n} files, {size}, {from}"))?);
    }
    let quoted = |text: String| toml::Value::String(text).to_string();
    let table = format!(
        "[models.{}]\npath = {}",
        quoted(args.source.name().into()),
        quoted(target.display().to_string())
    );
    let target = target.display();
    say(&format!(
        "{target} is whole: {n} files ({n_kept} were there), {size}, {from}"
    ))?;
    Ok(say(&format!("serve it with\n{table}"))?)
}

pub(super) fn models(
    config: Option<&Path>,
    command: &ModelsCommand,
    environment: &Environment,
) -> Result<(), Failure> {
    let of_config = || -> Result<Vec<(String, PathBuf)>, Failure> {
        let config = Config::load_for_a_command(config, environment)?;
        let models = config.models.into_iter();
        Ok(models.map(|(name, model)| (name, model.path)).collect())
    };
    match command {
        ModelsCommand::List => list(&of_config()?),
        ModelsCommand::Verify { folders } if folders.is_empty() => {
            check(of_config()?.into_iter().map(|(_, folder)| folder), false)
        }
        ModelsCommand::Verify { folders } => check(folders.iter().cloned(), true),
    }
}

fn list(models: &[(String, PathBuf)]) -> Result<(), Failure> {
    let header = ["model", "folder", "files", "from", "revision"].map(str::to_owned);
    let mut table = Table::new(header);
    for (name, folder) in models {
        let lock = Lock::read(folder).map_err(anyhow::Error::new)?;
        let [files, from, revision] = match lock {
            Some(lock) => {
                let bytes = lock.files.iter().map(|file| file.size).sum();
                let files = format!("{}, {}", lock.files.len(), progress::bytes(bytes));
                [
                    files,
                    format!("{} of {}", lock.source, lock.endpoint),
                    lock.commit,
                ]
            }
            None if folder.is_dir() => ["not fetched by pull".into(), String::new(), String::new()],
            None => ["missing".into(), String::new(), String::new()],
        };
        table.row([
            name.clone(),
            folder.display().to_string(),
            files,
            from,
            revision,
        ]);
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
                let name = embedgate_hub::LOCK_FILE;
                say(&format!("{shown}: not fetched by pull: it has no {name}"))?;
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
                Verdict::Bytes => format!("{path} has other bytes than were fetched"),
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
            Err(anyhow!("of what no pull has fetched it is not known what is right").into())
        }
        0 => Ok(()),
        _ => Err(
            anyhow!("not all is right: `embedgate pull` fetches what is wrong or missing").into(),
        ),
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    let text = format!("{}\n", text.trim_end());
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}
