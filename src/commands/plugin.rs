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
use embedgate_config::{Environment, LogLevel};

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
        PluginCommand::Pin { names } => pin::run(config, names, environment),
    }
}

fn inspect(file: &Path) -> anyhow::Result<()> {
    let inspection = embedgate_plugin_host::inspect(file)?;
    write!(io::stdout(), "{inspection}").context("standard output")
}
