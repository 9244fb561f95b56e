//! The models to fetch: named ones, or those of the configuration that are not there.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use embedgate_config::{Config, ConfigError, Environment, HubConfig, Source};

use super::{
    super::{Failure, named_model::usual_folder},
    say,
};
use crate::args::hub::PullArgs;

/// A model to fetch.
pub(super) struct Wanted {
    /// Its name in the configuration, where it has one.
    pub(super) name: Option<String>,
    pub(super) source: Source,
    pub(super) target: PathBuf,
}

/// The models to fetch, and what the configuration says of hubs.
pub(super) fn wanted(
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
        Ok(_) => Config::load_without_models(file, environment).map(Some),
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
