//! `embedgate plugin`: the tools of who writes and runs plugins.

mod bench;
mod cases;
mod new;
mod pin;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use embedgate_config::{Config, Environment, LogLevel};

use super::Failure;
use crate::args::PluginCommand;

pub(super) fn run(
    config: Option<&Path>,
    command: &PluginCommand,
    environment: &Environment,
) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::Inspect { file } => Ok(inspect(file)?),
        PluginCommand::Test(args) => {
            super::start_log(LogLevel::Info);
            cases::run(args, environment)
        }
        PluginCommand::Bench(args) => {
            // What a plugin logs in every call is no part of the measurement.
            super::start_log(LogLevel::Error);
            bench::run(args, environment)
        }
        PluginCommand::Compile => compile(config, environment),
        PluginCommand::Pin { names } => pin::run(config, names, environment),
    }
}

/// Loads the plugins once: what is compiled is kept.
fn compile(config: Option<&Path>, environment: &Environment) -> Result<(), Failure> {
    let config = Config::load(config, environment)?;
    super::start_log(LogLevel::Info);
    if config.plugins.is_empty() {
        return Err(anyhow::anyhow!("the configuration has no [plugins.NAME]").into());
    }
    if config.server.state_dir.is_none() {
        let message = "there is no place to keep them: set server.state_dir";
        return Err(Failure::Config(anyhow::anyhow!(message)));
    }
    super::check_plugins(&config, environment).map_err(Failure::Config)
}

fn inspect(file: &Path) -> anyhow::Result<()> {
    let inspection = embedgate_plugin_host::inspect(file)?;
    write!(io::stdout(), "{inspection}").context("standard output")
}
