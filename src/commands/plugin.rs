//! `embedgate plugin`: the tools of who writes and runs plugins.

mod bench;
mod cases;
mod new;
mod pin;
mod test;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use embedgate_config::{Config, Environment, LogLevel};

use super::{Failure, check::check_plugins, start_log};
use crate::args::plugin::PluginCommand;

pub(super) fn run(
    config: Option<&Path>,
    command: &PluginCommand,
    environment: &Environment,
) -> Result<(), Failure> {
    match command {
        PluginCommand::New(args) => new::run(args),
        PluginCommand::Inspect { file } => Ok(inspect(file)?),
        PluginCommand::Test(args) => {
            start_log(LogLevel::Info);
            test::run(args, environment)
        }
        PluginCommand::Bench(args) => {
            // What a plugin logs in every call is no part of the measurement.
            start_log(LogLevel::Error);
            bench::run(args, environment)
        }
        PluginCommand::Compile => compile(config, environment),
        PluginCommand::Pin { names } => pin::run(config, names, environment),
    }
}

/// Says where the compiled plugins are, and fails where none are: the log says why.
fn say_kept(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    let entries = folder
        .read_dir()
        .with_context(|| format!("{shown} cannot be read"))?;
    // Beside the key that their hashes are made with.
    let n = entries.count().saturating_sub(1);
    anyhow::ensure!(n > 0, "nothing was kept in {shown}");
    writeln!(io::stdout(), "{shown}: {n} compiled").context("standard output")
}

/// Loads the plugins once: what is compiled is kept.
fn compile(config: Option<&Path>, environment: &Environment) -> Result<(), Failure> {
    let config = Config::load(config, environment)?;
    start_log(LogLevel::Info);
    if config.plugins.is_empty() {
        return Err(anyhow::anyhow!("the configuration has no [plugins.NAME]").into());
    }
    let Some(folder) = crate::app::state_folder(&config, environment) else {
        let message = "there is no place to keep them: set server.state_dir";
        return Err(Failure::Config(anyhow::anyhow!(message)));
    };
    check_plugins(&config, environment).map_err(Failure::Config)?;
    Ok(say_kept(&folder.join("plugins"))?)
}

fn inspect(file: &Path) -> anyhow::Result<()> {
    let inspection = embedgate_plugin_host::inspect(file)?;
    write!(io::stdout(), "{inspection}").context("standard output")
}
