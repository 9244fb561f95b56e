//! `embedgate serve`.

mod single;
mod sockets;

use std::{fs, path::Path};

use anyhow::Context;
use embedgate_config::{Config, Environment};
use listenfd::ListenFd;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, runtime};
use crate::{
    app::App,
    args::serve::ServeArgs,
    http::listener::Listener,
    model_host::Fetcher,
    reload::source::Source,
    shutdown::{Shutdown, Stage},
    telemetry, whole_file,
};

pub(super) fn run(
    file: Option<&Path>,
    args: &ServeArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    embedgate_core::allocator::keep_large_blocks_apart();
    // Before there is another thread: it changes the environment.
    let handed = ListenFd::from_env();
    let runtime = runtime()?;
    // Before the configuration is read: whoever changes it and says so at once does not end the process.
    let hangups = runtime.block_on(async { signal(SignalKind::hangup()) });
    let hangups = hangups.context("no signal handler")?;
    let source = source(file, args, environment)?;
    let config = source.load()?;
    telemetry::init(&config.log);
    let server = config.server.clone();
    let fetcher = match args.pull {
        true => Some(fetcher(&config, environment)?),
        false => None,
    };
    let app = App::build(config, source, fetcher).map_err(Failure::Config)?;
    let mut app = app.recalibrating(args.recalibrate);
    let served: Result<(), Failure> = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("no signal handler")?;
        let listeners = sockets::open(&server, environment, handed).await?;
        tokio::select! {
            loaded = app.load_plugins() => loaded.map_err(Failure::Config)?,
            () = shutdown.reached(Stage::Draining) => {
                tracing::info!("stopped while plugins were being loaded");
                return Ok(());
            }
        }
        if let Some(file) = &args.port_file {
            write_port(file, &listeners.listener)?;
        }
        Ok(app.serve(listeners, shutdown, hangups).await?)
    });
    // What still loads or runs ends with the process: dropping the runtime would wait for it.
    runtime.shutdown_background();
    served
}

/// Returns the source of the configuration: a file, or the command line alone.
fn source(
    file: Option<&Path>,
    args: &ServeArgs,
    environment: &Environment,
) -> Result<Source, Failure> {
    let made = match &args.model {
        Some(_) if file.is_some() => {
            return Err(Failure::Config(anyhow::anyhow!(
                "--model serves one model without a configuration: leave out --config, or add the model to that file"
            )));
        }
        Some(model) => Some(single::config(model, args, environment)?),
        None => None,
    };
    Ok(Source {
        file: file.map(Path::to_owned),
        made,
        listen: args.listen,
        environment: environment.clone(),
    })
}

#[cfg(feature = "hub")]
#[expect(clippy::unnecessary_wraps, reason = "a build without hubs has none")]
fn fetcher(config: &Config, environment: &Environment) -> anyhow::Result<Fetcher> {
    Ok(crate::hub::fetcher::fetcher(&config.hub, environment))
}

#[cfg(not(feature = "hub"))]
fn fetcher(_: &Config, _: &Environment) -> anyhow::Result<Fetcher> {
    anyhow::bail!(
        "--pull: this embedgate was built without hubs: build it with the cargo feature hub"
    )
}

/// Writes the port at once: who reads the file finds nothing or all of it.
fn write_port(file: &Path, listener: &Listener) -> anyhow::Result<()> {
    let address = listener.address().context("the listener has no address")?;
    let line = format!("{}\n", address.port());
    // A pipe or a terminal cannot be replaced.
    let written = if file.metadata().is_ok_and(|found| !found.is_file()) {
        fs::write(file, line)
    } else {
        whole_file::write(file, line.as_bytes())
    };
    written.with_context(|| format!("--port-file {}: cannot be written", file.display()))
}
