//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// An embedding gateway: serves /v1/embeddings by model name from local candle and ONNX Runtime backends.
///
/// Every key of the configuration can also be set by a variable: EMBEDGATE_SERVER__MAX_BODY=64MiB sets server.max_body.
/// EMBEDGATE_CONFIG names the file, EMBEDGATE_LISTEN the address. A flag wins over a variable, a variable over the file.
///
/// Exit codes: 0 all well, 1 failed while running, 64 bad command line, 78 bad configuration.
#[derive(Debug, Parser)]
#[command(name = "embedgate", version, max_term_width = 110)]
pub struct Cli {
    /// The configuration file [default: $EMBEDGATE_CONFIG, embedgate.toml, /etc/embedgate/embedgate.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Check the configuration and the models' folders: print the resolved configuration, or every problem.
    Check(CheckArgs),
    /// Embed the lines of a file and print one JSON object a line.
    Embed(EmbedArgs),
    /// Write an ONNX variant of a model from its own weights.
    Convert(ConvertArgs),
}

/// Arguments of `serve`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ServeArgs {
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(value_name = "CONFIG")]
    pub file: Option<PathBuf>,
}

/// Arguments of `embed`.
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// A model of the configuration.
    #[arg(short, long, value_name = "NAME")]
    pub model: Option<String>,
    /// Cut vectors to so many dimensions.
    #[arg(short, long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// A file with one text a line; - is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The model's folder, with config.json, tokenizer.json and weights.
    #[arg(value_name = "MODEL_DIR")]
    pub folder: PathBuf,
    /// Where to write model.onnx and model.onnx_data [default: MODEL_DIR/onnx].
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Replace an ONNX model that is there already.
    #[arg(short, long)]
    pub force: bool,
}
