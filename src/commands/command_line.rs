//! `embedgate schema`, `completions` and `man`: what editors, shells and `man` want to know of the configuration and the
//! command line.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use embedgate_config::Config;

use super::{Failure, say};
use crate::args::{Cli, SchemaFormat};

/// Prints the keys of the configuration.
pub(super) fn schema(format: SchemaFormat) -> Result<(), Failure> {
    let text = match format {
        SchemaFormat::Json => format!("{:#}\n", Config::schema()),
        SchemaFormat::Markdown => Config::reference(),
    };
    Ok(say(&text)?)
}

/// Prints the completions of a shell.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "embedgate", &mut text);
    Ok(io::stdout().write_all(&text).context("standard output")?)
}

/// Writes a page for each command into a folder.
pub(super) fn man(folder: &Path) -> Result<(), Failure> {
    let write = || {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    let problem = || format!("{} cannot be written", folder.display());
    Ok(write().with_context(problem)?)
}
