//! The program: command line, configuration, build, serve, exit code.

use std::process::ExitCode;

use clap::Parser;
use embedgate::{args::Cli, commands};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => commands::run(cli),
        Err(error) => {
            // Help and version are asked for; anything else is a mistake. An error means that nobody reads.
            drop(error.print());
            if error.use_stderr() {
                commands::BAD_USAGE.into()
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}
