//! The work of the program for each command, and the exit code it ends with.

#[cfg(feature = "tools")]
mod bench;
#[cfg(feature = "tools")]
mod bench_backend;
mod check;
mod command_line;
mod convert;
#[cfg(feature = "tools")]
mod doctor;
mod embed;
mod health;
mod init;
mod key;
#[cfg(feature = "hub")]
mod models;
mod named_model;
#[cfg(feature = "plugins")]
mod plugin;
#[cfg(feature = "hub")]
mod pull;
mod serve;
#[cfg(feature = "tools")]
mod top;
mod usage;

use std::io::{self, Write};

use anyhow::Context;
use embedgate_config::{ConfigError, Environment, LogConfig, LogLevel};

use crate::{
    args::{Cli, Command, serve::ServeArgs},
    model::load::LoadError,
    telemetry,
};

/// Exit code for a bad command line (`EX_USAGE` of sysexits.h).
pub const BAD_USAGE: u8 = 64;
/// Exit code for a bad configuration (`EX_CONFIG` of sysexits.h).
pub(crate) const BAD_CONFIG: u8 = 78;

/// The reason why a command failed: the exit code depends on it.
enum Failure {
    Config(anyhow::Error),
    Running(anyhow::Error),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.into())
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::Running(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Running(error)
    }
}

/// Runs the command and returns the exit code.
#[must_use]
pub fn run(cli: Cli) -> u8 {
    let environment = Environment::current();
    let config = cli.config.as_deref();
    let serve_args = |args: ServeArgs| ServeArgs {
        listen: args.listen.or(cli.listen),
        port_file: args.port_file.or(cli.port_file),
        ..args
    };
    let result = match cli.command {
        None => serve::run(config, &serve_args(ServeArgs::default()), &environment),
        Some(Command::Serve(args)) => serve::run(config, &serve_args(args), &environment),
        Some(Command::Init(args)) => init::run(config, &args, &environment),
        Some(Command::Check(args)) => check::run(config, &args, &environment),
        Some(Command::Embed(args)) => embed::run(config, &args, &environment),
        Some(Command::Convert(args)) => convert::run(config, &args, &environment),
        #[cfg(feature = "tools")]
        Some(Command::Bench(args)) => bench::run(&args, &environment),
        #[cfg(feature = "tools")]
        Some(Command::BenchBare) => bench::run_baseline(),
        #[cfg(feature = "tools")]
        Some(Command::Doctor(command)) => doctor::run(&command, &environment),
        #[cfg(feature = "tools")]
        Some(Command::Top(args)) => top::run(&args, &environment),
        Some(Command::Key(command)) => key::run(&command),
        Some(Command::Health(args)) => health::run(config, &args, &environment),
        Some(Command::Schema { format }) => command_line::schema(format),
        Some(Command::Completions { shell }) => command_line::completions(shell),
        Some(Command::Man { folder }) => command_line::man(&folder),
        Some(Command::Usage(args)) => usage::run(config, &args, &environment),
        #[cfg(feature = "hub")]
        Some(Command::Pull(args)) => pull::run(config, &args, &environment),
        #[cfg(feature = "hub")]
        Some(Command::Models(command)) => models::run(config, &command, &environment),
        #[cfg(feature = "plugins")]
        Some(Command::Plugin(command)) => plugin::run(config, &command, &environment),
        #[cfg(not(feature = "plugins"))]
        Some(Command::Plugin(_)) => Err(anyhow::anyhow!(
            "this embedgate was built without plugins: build it with the cargo feature plugins"
        )
        .into()),
        #[cfg(feature = "tools")]
        Some(Command::BenchBackend(args)) => bench_backend::run(config, &args, &environment),
    };
    let is_read = telemetry::flush();
    let (code, error) = match result {
        Ok(()) => return 0,
        Err(Failure::Config(error)) => (BAD_CONFIG, error),
        Err(Failure::Running(error)) => (1, error),
    };
    // The last words go to standard error as they are; an error means that nobody reads. Who does not read the log does not
    // read them, and would be waited for.
    if is_read {
        let words = format!("embedgate: {error:#}\n");
        // In one piece, that no line of the log comes between.
        drop(io::stderr().write_all(words.as_bytes()));
    }
    code
}

/// Logs for a command without a server, from this level on.
fn start_log(level: LogLevel) {
    telemetry::init(&LogConfig {
        level,
        ..LogConfig::default()
    });
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")
}

/// Prints a text, which ends with its last line.
fn say(text: &str) -> anyhow::Result<()> {
    let text = format!("{}\n", text.trim_end());
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

/// A text as one word of a shell.
fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A text of TOML in which `${` stands for itself.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell_are_quoted_where_they_must_be() {
        for (text, quoted) in [
            ("models/bge-m3", "models/bge-m3"),
            ("two words", "'two words'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell(text), quoted);
        }
    }
}
