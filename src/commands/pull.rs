//! `embedgate pull`: fetches a model into its folder.

pub(super) mod progress;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use embedgate_config::{Config, ConfigError, Environment, HubConfig, LogLevel, Source};
use embedgate_hub::{Pulled, Request, Selection, Settings};

use self::progress::{Shown, bytes};
use super::{Failure, place::usual_folder, runtime, say, shell, start_log};
use crate::{args::hub::PullArgs, hub};

/// A model to fetch.
struct Wanted {
    /// Its name in the configuration, where it has one.
    name: Option<String>,
    source: Source,
    target: PathBuf,
}

pub(super) fn run(
    config: Option<&Path>,
    args: &PullArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    start_log(LogLevel::Warn);
    let (wanted, of_config) = wanted(config, args, environment)?;
    let asked = hub::Asked {
        from: args.from.clone(),
        jobs: args.jobs,
    };
    let settings = hub::settings(&asked, &of_config, environment)?;
    for wanted in wanted {
        fetch(&wanted, args, settings.clone())?;
    }
    Ok(())
}

/// The models to fetch, and what the configuration says of hubs.
fn wanted(
    file: Option<&Path>,
    args: &PullArgs,
    environment: &Environment,
) -> Result<(Vec<Wanted>, HubConfig), Failure> {
    let config = match (configuration(file, environment), &args.model) {
        (Err(error), Some(model)) if file.is_none() && model.parse::<Source>().is_ok() => {
            tracing::warn!("what the configuration says of hubs does not count: {error}");
            None
        }
        (config, _) => config?,
    };
    let of_hubs = config
        .as_ref()
        .map(|config| config.hub.clone())
        .unwrap_or_default();
    let Some(model) = &args.model else {
        let missing = "name a model, such as BAAI/bge-m3, or a configuration that has sources";
        let config = config.ok_or_else(|| Failure::Running(anyhow!(missing)))?;
        return Ok((all_missing(&config)?, of_hubs));
    };
    if let Some(entry) = config.as_ref().and_then(|config| config.models.get(model)) {
        let source = entry.source.clone().with_context(|| {
            format!("models.{model} has no source: write source = \"OWNER/NAME\" beside its path")
        })?;
        let wanted = Wanted {
            name: Some(model.clone()),
            source,
            target: args.to.clone().unwrap_or_else(|| entry.path.clone()),
        };
        return Ok((vec![wanted], of_hubs));
    }
    let source: Source = model.parse().map_err(|problem: String| match &config {
        Some(_) => anyhow!("{problem}, or the name of a model of the configuration"),
        None => anyhow!("{problem}"),
    })?;
    let usual = || usual_folder(&source);
    let wanted = Wanted {
        name: None,
        target: args.to.clone().unwrap_or_else(usual),
        source,
    };
    Ok((vec![wanted], of_hubs))
}

/// The configuration, where there is one.
fn configuration(
    file: Option<&Path>,
    environment: &Environment,
) -> Result<Option<Config>, ConfigError> {
    match Config::find(file, environment) {
        Ok(_) => Config::load_for_a_fetch(file, environment).map(Some),
        Err(_) => Ok(None),
    }
}

/// The models of the configuration whose folders are not there.
fn all_missing(config: &Config) -> anyhow::Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    let mut n_sources = 0;
    for (name, model) in &config.models {
        let Some(source) = &model.source else {
            continue;
        };
        n_sources += 1;
        if model.path.is_dir() {
            say(&format!(
                "{name}: {} is there; `embedgate pull {name}` compares it with {source}",
                model.path.display()
            ))?;
            continue;
        }
        wanted.push(Wanted {
            name: Some(name.clone()),
            source: source.clone(),
            target: model.path.clone(),
        });
    }
    if n_sources == 0 {
        return Err(anyhow!(
            "no model of the configuration has a source: name a model, such as BAAI/bge-m3"
        ));
    }
    Ok(wanted)
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
