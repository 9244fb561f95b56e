//! `embedgate key`: API keys.

use std::io::{self, Write};

use anyhow::Context;
use embedgate_request::key;

use crate::args::KeyCommand;

pub(super) fn run(command: &KeyCommand) -> Result<(), super::Failure> {
    let KeyCommand::New { name } = command;
    let (key, hash) = key::generate().context("the system gives no randomness")?;
    let name = name
        .as_ref()
        .map(|name| format!("name = {}, ", toml::Value::String(name.clone())))
        .unwrap_or_default();
    // The key alone goes where a pipe may take it.
    let told = writeln!(io::stdout(), "{key}");
    told.context("standard output")?;
    let told = writeln!(
        io::stderr(),
        "\nThis is shown once: hand it to its user. The configuration needs its hash alone, under [auth]:\n\n\
         keys = [{{ {name}hash = \"{hash}\" }}]"
    );
    Ok(told.context("standard error")?)
}
