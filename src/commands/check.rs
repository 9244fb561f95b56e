//! `embedgate check`: prints the resolved configuration, or every problem; of a model's folder, what would be served.

mod model;

use std::path::Path;

use anyhow::anyhow;
use embedgate_config::{Config, Environment, LogLevel};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::Plugins;

use super::{Failure, runtime, say, start_log};
use crate::{
    app::plugins::{self, plugin_context},
    args::CheckArgs,
    http::tls::Tls,
    model::{load, load_context::LoadContext},
};

pub(super) fn run(
    config: Option<&Path>,
    args: &CheckArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    if let Some(folder) = args.file.as_deref().filter(|path| path.is_dir()) {
        return model::run(folder, environment);
    }
    let config = Config::load(args.file.as_deref().or(config), environment)?;
    // What serves, and is not as it could be, is said too.
    start_log(LogLevel::Warn);
    let context = LoadContext::new(&config, environment);
    let problem = |(name, model): (&String, &_)| {
        load::inspect(name, model, &context)
            .err()
            .map(|error| format!("models.{name}: {error}"))
    };
    let problems: Vec<String> = config.models.iter().filter_map(problem).collect();
    if !problems.is_empty() {
        return Err(Failure::Config(anyhow!(
            "models that cannot be served:\n  {}",
            problems.join("\n  ")
        )));
    }
    if let Some(tls) = &config.server.tls {
        Tls::load(tls).map_err(Failure::Config)?;
    }
    check_plugins(&config, environment).map_err(Failure::Config)?;
    config.log_warnings();
    Ok(say(&config.to_toml())?)
}

/// Loads the plugins, as a start would.
pub(super) fn check_plugins(config: &Config, environment: &Environment) -> anyhow::Result<()> {
    if config.plugins.is_empty() {
        return Ok(());
    }
    start_log(LogLevel::Warn);
    let context = plugin_context(config, environment, &Metrics::new());
    let loaded = Plugins::new(context);
    let runtime = runtime()?;
    let _in_runtime = runtime.enter();
    let failed = loaded.load(&config.plugins).failed;
    plugins::check_plugins(config, &loaded, failed)
}
