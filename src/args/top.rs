//! The command line of `top`.

use clap::Args;
use embedgate_config::Period;
use embedgate_tools::bench::Target;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The server, such as http://127.0.0.1:9100.
    #[arg(long, default_value = "http://127.0.0.1:9100")]
    pub url: Target,
    /// An API key, where /metrics asks for one (server.public_names = false); a variable, EMBEDGATE_KEY, keeps it out of the list
    /// of processes.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The time between two looks at the server, 100ms to 1m.
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub every: Period,
    /// Look twice, print the figures, and end: for scripts, and where there is no terminal.
    #[arg(long)]
    pub once: bool,
}
