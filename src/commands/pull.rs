//! `embedgate pull`: fetches a model into its folder.

pub(super) mod progress;
mod wanted;

use std::path::Path;

use anyhow::anyhow;
use embedgate_config::{Environment, LogLevel};
use embedgate_hub::{Pulled, Request, Selection, Settings};

use self::{
    progress::{Shown, bytes},
    wanted::{Wanted, wanted},
};
use super::{Failure, runtime, say, shell, start_log};
use crate::{args::hub::PullArgs, hub};

pub(super) fn run(
    config: Option<&Path>,
    args: &PullArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    start_log(LogLevel::Warn);
    let (wanted, of_config) = wanted(config, args, environment)?;
    let options = hub::HubOptions {
        from: args.from.clone(),
        jobs: args.jobs,
    };
    let settings = hub::settings(&options, &of_config, environment)?;
    for wanted in wanted {
        fetch(&wanted, args, settings.clone())?;
    }
    Ok(())
}

fn fetch(wanted: &Wanted, args: &PullArgs, settings: Settings) -> Result<(), Failure> {
    let request = Request {
        source: wanted.source.clone(),
        target: wanted.target.clone(),
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
    let Pulled {
        lock,
        n_kept,
        n_found,
        out_of_date,
    } = pulled?;
    let all = lock.files.iter().map(|file| file.size).sum();
    let (n, size, commit) = (lock.files.len(), bytes(all), &lock.commit);
    let from = format!("{} at {commit} of {}", lock.source, lock.endpoint);
    if args.dry_run {
        for file in &lock.files {
            say(&format!(
                "{:>10}  {}",
                bytes(file.size),
                file.path.display()
            ))?;
        }
        return Ok(say(&format!("{n} files, {size}, {from}"))?);
    }
    let target = wanted.target.display();
    let of_cache = match n_found {
        0 => String::new(),
        n => format!(", {n} from a cache"),
    };
    say(&format!(
        "{target} is whole: {n} files ({n_kept} were there{of_cache}), {size}, {from}"
    ))?;
    let folder = shell(&target.to_string());
    for file in out_of_date {
        let mend = hub::conversion(&file).map_or(String::new(), |options| {
            format!(": `embedgate convert {folder}{options} --force` writes it anew")
        });
        say(&format!(
            "{} was written from other weights{mend}",
            wanted.target.join(&file).display()
        ))?;
    }
    let quoted = |text: String| toml::Value::String(text).to_string();
    let serve = match &wanted.name {
        // The configuration may name another folder.
        Some(_) if args.to.is_none() => "its table in the configuration serves it".to_owned(),
        _ => format!(
            "serve it with `embedgate serve --model {folder}`, or in a configuration with\n[models.{}]\npath = {}",
            quoted(wanted.source.name().into()),
            quoted(target.to_string())
        ),
    };
    Ok(say(&serve)?)
}
