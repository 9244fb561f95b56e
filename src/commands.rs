//! What the program does for each command, and the exit code it ends with.

#[cfg(feature = "tools")]
mod bench;
#[cfg(feature = "tools")]
mod bench_backend;
mod convert;
#[cfg(feature = "tools")]
mod doctor;
mod embed;
#[cfg(feature = "hub")]
mod hub;
mod key;
#[cfg(feature = "plugins")]
mod plugin;

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use embedgate_config::{Config, ConfigError, Environment, LogConfig, LogLevel};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::Plugins;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    app::{self, App},
    args::{CheckArgs, Cli, Command, ServeArgs},
    model::{
        load::{self, LoadError},
        surroundings::Surroundings,
    },
    reload::Source,
    shutdown::{Shutdown, Stage},
    telemetry,
};

/// Exit code for a bad command line (`EX_USAGE` of sysexits.h).
pub const BAD_USAGE: u8 = 64;
/// Exit code for a bad configuration (`EX_CONFIG` of sysexits.h).
pub(crate) const BAD_CONFIG: u8 = 78;

/// Why a command failed: the exit code depends on it.
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
        recalibrate: args.recalibrate,
    };
    let result = match cli.command {
        None => serve(config, &serve_args(ServeArgs::default()), &environment),
        Some(Command::Serve(args)) => serve(config, &serve_args(args), &environment),
        Some(Command::Check(args)) => check(config, &args, &environment),
        Some(Command::Embed(args)) => embed::run(config, &args, &environment),
        Some(Command::Convert(args)) => convert::run(config, &args, &environment),
        #[cfg(feature = "tools")]
        Some(Command::Bench(args)) => bench::run(&args, &environment),
        #[cfg(feature = "tools")]
        Some(Command::BenchBare) => bench::run_bare(),
        #[cfg(feature = "tools")]
        Some(Command::Doctor(command)) => doctor::run(&command, &environment),
        Some(Command::Key(command)) => key::run(&command),
        #[cfg(feature = "hub")]
        Some(Command::Pull(args)) => hub::pull(&args, &environment),
        #[cfg(feature = "hub")]
        Some(Command::Models(command)) => hub::models(config, &command, &environment),
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

fn serve(file: Option<&Path>, args: &ServeArgs, environment: &Environment) -> Result<(), Failure> {
    let runtime = runtime()?;
    // Before the configuration is read: whoever changes it and says so at once does not end the process.
    let hangups = runtime.block_on(async { signal(SignalKind::hangup()) });
    let hangups = hangups.context("no signal handler")?;
    let mut config = Config::load(file, environment)?;
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    telemetry::init(&config.log);
    let listen = config.server.listen;
    let source = Source {
        file: file.map(Path::to_owned),
        made: None,
        environment: environment.clone(),
    };
    let app = App::build(config, source, None).map_err(Failure::Config)?;
    let mut app = app.recalibrating(args.recalibrate);
    let served: Result<(), Failure> = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().context("no signal handler")?;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|e| listen_error(listen, &e))?;
        tokio::select! {
            loaded = app.load_plugins() => loaded.map_err(Failure::Config)?,
            () = shutdown.reached(Stage::Draining) => {
                tracing::info!("stopped while plugins were being loaded");
                return Ok(());
            }
        }
        if let Some(file) = &args.port_file {
            write_port(file, &listener)?;
        }
        Ok(app.serve(listener, shutdown, hangups).await?)
    });
    // What still loads or runs ends with the process: dropping the runtime would wait for it.
    runtime.shutdown_background();
    served
}

/// Writes the port at once: who reads the file finds nothing or all of it.
fn write_port(file: &Path, listener: &TcpListener) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let line = format!("{}\n", address.port());
    // A pipe or a terminal cannot be replaced.
    let written = if file.metadata().is_ok_and(|found| !found.is_file()) {
        fs::write(file, line)
    } else {
        let mut fresh = file.as_os_str().to_owned();
        fresh.push(".new");
        fs::write(&fresh, line).and_then(|()| fs::rename(&fresh, file))
    };
    written.with_context(|| format!("--port-file {}: cannot be written", file.display()))
}

fn listen_error(address: std::net::SocketAddr, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use: another process listens there; stop it, or choose another address with --listen"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!(
                "{address} may not be used: ports below 1024 need a privilege, choose a higher one with --listen"
            )
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
    }
}

fn check(
    config: Option<&Path>,
    args: &CheckArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    let config = Config::load(args.file.as_deref().or(config), environment)?;
    // What serves, and is not as it could be, is said too.
    start_log(LogLevel::Warn);
    let surroundings = Surroundings::new(&config, environment);
    let problem = |(name, model): (&String, &_)| {
        load::inspect(name, model, &surroundings)
            .err()
            .map(|error| format!("models.{name}: {error}"))
    };
    let problems: Vec<String> = config.models.iter().filter_map(problem).collect();
    if !problems.is_empty() {
        return Err(Failure::Config(anyhow::anyhow!(
            "models that cannot be served:\n  {}",
            problems.join("\n  ")
        )));
    }
    check_plugins(&config, environment).map_err(Failure::Config)?;
    config.say_doubts();
    Ok(io::stdout()
        .write_all(config.to_toml().as_bytes())
        .context("standard output")?)
}

/// Loads the plugins, as a start would.
fn check_plugins(config: &Config, environment: &Environment) -> anyhow::Result<()> {
    if config.plugins.is_empty() {
        return Ok(());
    }
    start_log(LogLevel::Warn);
    let surroundings = app::plugin_surroundings(config, environment, &Metrics::new());
    let plugins = Plugins::new(surroundings);
    let runtime = runtime()?;
    let _in_runtime = runtime.enter();
    let failed = plugins.load(&config.plugins).failed;
    app::check_plugins(config, &plugins, failed)
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
