//! `embedgate completions` and `embedgate man`: what shells and `man` want to know of the command line.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Failure;
use crate::args::Cli;

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
