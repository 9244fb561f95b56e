//! The command line of `plugin`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use embedgate_config::Period;

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Make a folder with a plugin that builds.
    New(NewPluginArgs),
    /// Print a component's hooks, imports, interface, size and SHA-256.
    Inspect {
        /// The component.
        file: PathBuf,
    },
    /// Ask a plugin what a file of cases says, and compare its answers.
    Test(TestPluginArgs),
    /// Measure what a plugin's calls cost.
    Bench(BenchPluginArgs),
    /// Compile the configuration's plugins into server.state_dir, so that the next start finds them.
    Compile,
    /// Write the SHA-256 of plugins into the configuration file.
    Pin {
        /// Names of the configuration [default: all].
        names: Vec<String>,
    },
}

/// Arguments of `plugin new`.
#[derive(Debug, Args)]
pub struct NewPluginArgs {
    /// The plugin's name, and the folder's.
    pub name: String,
    /// The language that it is written in.
    #[arg(short, long, value_enum)]
    pub lang: LanguageArg,
}

/// A language of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LanguageArg {
    /// With the SDK.
    Rust,
    /// By componentize-qjs.
    Js,
    /// By componentize-py.
    Py,
}

/// Arguments of `plugin test`.
#[derive(Debug, Args)]
pub struct TestPluginArgs {
    /// The component.
    pub file: PathBuf,
    /// What to ask it, and what to expect (docs/plugins.md).
    pub cases: PathBuf,
}

/// Arguments of `plugin bench`.
#[derive(Debug, Args)]
pub struct BenchPluginArgs {
    /// The component.
    pub file: PathBuf,
    /// A file of cases: its `plugin` table, and the cases to measure.
    pub cases: Option<PathBuf>,
    /// Length of each measurement.
    #[arg(short, long, value_name = "TIME", default_value = "1s")]
    pub duration: Period,
}
