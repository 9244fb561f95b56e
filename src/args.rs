//! The command line.

#[cfg(feature = "tools")]
pub(crate) mod bench;
#[cfg(feature = "tools")]
pub(crate) mod bench_backend;
pub(crate) mod convert;
#[cfg(feature = "tools")]
pub(crate) mod doctor;
pub(crate) mod embed;
#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod plugin;
pub(crate) mod serve;
#[cfg(feature = "tools")]
pub(crate) mod top;
pub(crate) mod usage;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

#[cfg(feature = "hub")]
use self::hub::{ModelsCommand, PullArgs};
#[cfg(feature = "tools")]
use self::{
    bench::BenchArgs, bench_backend::BenchBackendArgs, doctor::DoctorCommand, top::TopArgs,
};
use self::{
    convert::ConvertArgs, embed::EmbedArgs, plugin::PluginCommand, serve::ServeArgs,
    usage::UsageArgs,
};

/// The commands that this build does not have.
#[cfg(not(all(feature = "tools", feature = "hub")))]
const NOT_BUILT: &str = match (cfg!(feature = "tools"), cfg!(feature = "hub")) {
    (false, true) => {
        "bench, bench-backend, doctor and top are not in this build: they need the cargo feature tools."
    }
    (true, _) => "pull and models are not in this build: they need the cargo feature hub.",
    (false, false) => {
        "bench, bench-backend, doctor and top are not in this build: they need the cargo feature tools. Nor are pull and models: they need the \
         cargo feature hub."
    }
};

/// An embedding gateway: serves /v1/embeddings by model name, from models on this machine.
///
/// Every key of the configuration can also be set by a variable: EMBEDGATE_SERVER__MAX_BODY=64MiB sets server.max_body.
/// EMBEDGATE_CONFIG names the file, EMBEDGATE_LISTEN the address. A flag wins over a variable, a variable over the file.
///
/// Exit codes: 0 all well, 1 failed while running, 64 bad command line, 78 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "embedgate", version, max_term_width = 110)]
#[cfg_attr(
    not(all(feature = "tools", feature = "hub")),
    command(after_help = NOT_BUILT)
)]
pub struct Cli {
    /// The configuration file [default: $EMBEDGATE_CONFIG, embedgate.toml, /etc/embedgate/embedgate.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS", value_parser = embedgate_config::resolve)]
    pub listen: Option<SocketAddr>,
    /// Write the port that is listened on to this file, once it is (with --listen 127.0.0.1:0, the system chooses one).
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Write a configuration to begin with, and a key.
    Init(InitArgs),
    /// Check the configuration and the models' folders: print the resolved configuration, or every problem. Of a model's folder, print
    /// what would be served.
    Check(CheckArgs),
    /// Embed the lines of a file, and write JSON lines, Parquet or npz.
    Embed(EmbedArgs),
    /// Write an ONNX variant of a model from its own weights.
    Convert(ConvertArgs),
    /// Fetch a model from Hugging Face, ModelScope or a mirror: every byte checked, and gone on with where it was broken off.
    #[cfg(feature = "hub")]
    Pull(PullArgs),
    /// Say of fetched models where they are from, and whether every byte is right.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Put load on this and other embedding servers, and report what they make of it.
    #[cfg(feature = "tools")]
    Bench(Box<BenchArgs>),
    /// Send a running server what a client of it sends, and say what the client would say.
    #[cfg(feature = "tools")]
    #[command(subcommand)]
    Doctor(DoctorCommand),
    /// Show what a running server does, as its page does in a browser.
    #[cfg(feature = "tools")]
    Top(TopArgs),
    /// Make API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Write what each caller used, by day and model.
    Usage(UsageArgs),
    /// Ask the server of the configuration whether it is ready: exit code 0 if so.
    Health(HealthArgs),
    /// Print all keys of the configuration: as a JSON Schema, for editors, or as the reference in Markdown.
    Schema {
        /// The form of the output.
        #[arg(long, value_enum, default_value_t = SchemaFormat::Json)]
        format: SchemaFormat,
    },
    /// Print what a shell needs to complete the command line.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages, one for each command.
    Man {
        /// The folder that they are written to.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Make, inspect, test, measure and pin plugins.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Serve the same answer to everybody: what `bench --bare` compares with.
    #[cfg(feature = "tools")]
    #[command(hide = true)]
    BenchBare,
    /// Measure a model's backend alone: its speed by shape of batch, beside what the processor can do, and its accuracy.
    #[cfg(feature = "tools")]
    BenchBackend(BenchBackendArgs),
}

/// A form of the configuration's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// JSON Schema, draft 7.
    Json,
    /// A page with a table of keys for each table of the file.
    Markdown,
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Print a new key once, and the line for the configuration, which holds its hash alone.
    New {
        /// Who will use it.
        #[arg(short, long)]
        name: Option<String>,
    },
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// A model's folder, or a model of a hub, such as BAAI/bge-m3.
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// The name that clients use [default: the folder's].
    #[arg(short, long)]
    pub name: Option<String>,
    /// Where to listen.
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:9100", value_parser = embedgate_config::resolve)]
    pub listen: SocketAddr,
    /// The file to write [default: embedgate.toml].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(short, long)]
    pub force: bool,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Ask at this address instead of server.listen.
    #[arg(short, long, value_name = "ADDRESS", value_parser = embedgate_config::resolve)]
    pub listen: Option<SocketAddr>,
    /// Ask whether it lives, and not whether its models are loaded.
    #[arg(long)]
    pub live: bool,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file, or the folder of a model: then what would be served of it is printed.
    #[arg(value_name = "CONFIG|FOLDER")]
    pub file: Option<PathBuf>,
}
