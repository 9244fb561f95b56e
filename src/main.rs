//! The program: command line, configuration, build, serve, exit code.

use std::io::Write;

use clap::Parser;
use embedgate::{BAD_USAGE, Cli};

fn main() -> ! {
    let code = match Cli::try_parse() {
        Ok(cli) => embedgate::run(cli),
        Err(error) => {
            // Help and version are asked for; anything else is a mistake. An error means that nobody reads.
            drop(error.print());
            if error.use_stderr() { BAD_USAGE } else { 0 }
        }
    };
    // An error means that nobody reads.
    drop(std::io::stdout().flush());
    // At once: exit handlers of oneDNN and ONNX Runtime would free what a thread that still loads or runs is using.
    signal_hook::low_level::exit(code.into())
}
