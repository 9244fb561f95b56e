//! A configuration of one model, said on the command line alone.

use std::path::Path;

use anyhow::anyhow;
use embedgate_config::{Config, ConfigError, Environment};
use toml::{Table, Value};

use crate::{
    args::serve::ServeArgs,
    commands::{Failure, literal, named_model::NamedModel},
};

/// The configuration that serves a model: a folder, or a model of a hub whose folder is in `models`.
pub(super) fn config(
    model: &str,
    args: &ServeArgs,
    environment: &Environment,
) -> Result<Config, Failure> {
    let named_model = NamedModel::of(model);
    let named_model = named_model.map_err(|error| Failure::Config(anyhow!("--model: {error}")))?;
    let name = args.name.clone().unwrap_or_else(|| named_model.name());
    let mut entry = Table::new();
    entry.insert("path".into(), literal(&named_model.path).into());
    let aliases: Vec<String> = args.aliases.iter().map(|alias| literal(alias)).collect();
    entry.insert("aliases".into(), aliases.into());
    if let Some(source) = named_model.source {
        entry.insert("source".into(), source.to_string().into());
    }
    let key = args
        .key
        .as_deref()
        .or_else(|| environment.get("EMBEDGATE_KEY"));
    let auth = match key {
        Some(_) if args.no_auth => {
            return Err(Failure::Config(anyhow!(
                "--no-auth lets anybody in, and there is a key (--key or EMBEDGATE_KEY): leave out one of the two"
            )));
        }
        Some(key) => ("keys", Value::Array(vec![literal(key).into()])),
        None => ("mode", "none".into()),
    };
    let table = Table::from_iter([
        (
            "auth".into(),
            Table::from_iter([(auth.0.into(), auth.1)]).into(),
        ),
        (
            "models".into(),
            Table::from_iter([(name, entry.into())]).into(),
        ),
    ]);
    let config =
        Config::parse(&table.to_string(), Path::new(""), environment).map_err(|problems| {
            ConfigError {
                file: None,
                problems,
            }
        })?;
    let listen = args.listen.unwrap_or(config.server.listen);
    if key.is_none() && !args.no_auth && !listen.ip().is_loopback() {
        return Err(Failure::Config(anyhow!(
            "others than this machine reach {listen}: say who may use the server with --key KEY (or EMBEDGATE_KEY), or let anybody in with --no-auth"
        )));
    }
    Ok(config)
}
