//! The command line of `serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// Arguments of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Listen here instead of server.listen, such as 0.0.0.0:9100.
    #[arg(short, long, value_name = "ADDRESS", value_parser = embedgate_config::resolve)]
    pub listen: Option<SocketAddr>,
    /// Write the port that is listened on to this file, once it is.
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Measure how fast models are once more, whatever is kept in server.state_dir.
    #[arg(long)]
    pub recalibrate: bool,
    /// Fetch models that have a source and are not there, while others serve.
    #[arg(long)]
    pub pull: bool,
    /// Serve this model without a configuration: a folder, or a model of a hub (with --pull it is fetched into models/NAME).
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The name of --model [default: the folder's].
    #[arg(long, requires = "model")]
    pub name: Option<String>,
    /// Other names of --model.
    #[arg(
        long = "alias",
        value_name = "NAME,...",
        value_delimiter = ',',
        requires = "model"
    )]
    pub aliases: Vec<String>,
    /// The key that clients of --model send; EMBEDGATE_KEY says it too, where other users of this machine do not see it. Without
    /// one, anybody on this machine may use the server, and nobody else reaches it.
    #[arg(long, requires = "model")]
    pub key: Option<String>,
    /// Let anybody use --model, on any address.
    #[arg(long, requires = "model")]
    pub no_auth: bool,
}
