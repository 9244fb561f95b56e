//! Composes everything and serves it: the only place that knows all parts.

mod announce;
mod begin;
pub(crate) mod plugins;
mod stop;

use std::{path::PathBuf, sync::Arc};

use anyhow::bail;
use embedgate_config::{Config, Environment, ModelConfig};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::{Plugins, Stamps};
use embedgate_request::Memory;
use embedgate_traces::Traces;
use sd_notify::NotifyState;
use tokio::{signal::unix::Signal, sync::watch};

use self::{
    plugins::plugin_context,
    stop::{flush, stop},
};
use crate::{
    auth::Authenticator,
    cache::now_seconds,
    http::{
        self, Gateway,
        connection::{self, End, Server},
        listener::Listener,
        tls::Tls,
    },
    model::{load, load_context::LoadContext},
    model_host::{Fetcher, ModelHost, Parts},
    reload::{Reloader, ask::Reloads, source::Source},
    shutdown::{Shutdown, Stage},
    usage::Usage,
};

/// The sockets where requests arrive.
pub(crate) struct Listeners {
    /// The socket of clients.
    pub(crate) listener: Listener,
    /// The path of clients on this machine, where there is one.
    pub(crate) local: Option<Listener>,
    /// The socket of administrators, when they have an address of their own.
    pub(crate) admin: Option<Listener>,
    /// True where somebody else holds the first socket, who had connections wait before and can go on with that.
    pub(crate) is_handed_over: bool,
}

/// A configured server, not yet listening.
pub(crate) struct App {
    config: Config,
    load_context: LoadContext,
    source: Source,
    metrics: Metrics,
    tls: Option<Arc<Tls>>,
    traces: Arc<Traces>,
    usage: Usage,
    plugins: Arc<Plugins>,
    /// The plugins' files before they were read.
    stamps: Option<Stamps>,
    /// Gets models that are not there, where that is asked for.
    fetcher: Option<Fetcher>,
}

impl App {
    /// Checks what can be checked without reading weights: the configuration against the models' folders.
    ///
    /// # Errors
    /// Every problem, in one message.
    pub(crate) fn build(
        config: Config,
        source: Source,
        fetcher: Option<Fetcher>,
    ) -> anyhow::Result<Self> {
        let problems: Vec<String> = folder_problems(&config, fetcher.is_some());
        if !problems.is_empty()
            && (problems.len() == config.models.len() || config.server.require_all_models)
        {
            bail!("models that cannot be served:\n  {}", problems.join("\n  "));
        }
        let load_context = LoadContext::new(&config, &source.environment);
        let metrics = Metrics::new();
        metrics.build(env!("CARGO_PKG_VERSION"));
        let tls = config.server.tls.as_ref().map(Tls::load).transpose()?;
        let tls = tls.map(Arc::new);
        let usage = Usage::new(
            usage_folder(&config, &source.environment),
            config.usage.keep.0,
        );
        let traces = Arc::new(Traces::start(&config.telemetry, &metrics)?);
        let plugins = Arc::new(Plugins::new(plugin_context(
            &config,
            &source.environment,
            &metrics,
        )));
        Ok(Self {
            config,
            load_context,
            source,
            metrics,
            tls,
            traces,
            usage,
            plugins,
            stamps: None,
            fetcher,
        })
    }

    /// Sets whether the speed of the models is measured once more, in place of the kept measurements.
    #[must_use]
    pub(crate) fn recalibrating(mut self, is_asked: bool) -> Self {
        self.load_context.recalibrate = is_asked;
        self
    }

    /// Listens at once, loads the models, serves until the shutdown begins, and cleans up.
    ///
    /// Until the models are loaded, requests get 503 with Retry-After. At each of `hangups` the configuration is read again.
    ///
    /// # Errors
    /// When no model can be loaded (or not all, where all are required), or requests had to be cut off at the end.
    pub(crate) async fn serve(
        self,
        mut listeners: Listeners,
        shutdown: Shutdown,
        mut hangups: Signal,
    ) -> anyhow::Result<()> {
        let (reloads, asking) = Reloads::channel();
        let gateway = Arc::new(self.gateway(reloads, &shutdown));
        self.announce(&listeners, &gateway)?;
        tell_systemd(NotifyState::Ready);
        let (address, admin) = (listeners.listener.address(), listeners.admin.take());
        let (loaded, is_loaded) = watch::channel(false);
        let until_loaded = listeners.is_handed_over.then_some(is_loaded);
        let serving = self.listen(listeners, &gateway, until_loaded, &shutdown);
        let administering = self.administer(admin, &gateway, &shutdown);
        let certificates = async {
            match &self.tls {
                Some(tls) => tls.watch().await,
                None => std::future::pending().await,
            }
        };
        let loading = self.begin(&gateway, address, loaded);
        let reloader = self.reloader(&gateway.models);
        let reloading = async {
            let authenticator = &gateway.authenticator;
            let watching = reloader.watch(authenticator, &mut hangups, asking, &shutdown);
            watching.await;
            std::future::pending::<()>().await;
        };
        let stopping = async {
            shutdown.reached(Stage::Draining).await;
            tell_systemd(NotifyState::Stopping);
            std::future::pending::<()>().await;
        };
        let counting = self.usage.keep();
        let end = tokio::select! {
            end = serving => end,
            failed = loading => return failed,
            () = administering => unreachable!("it waits for ever"),
            () = reloading => unreachable!("it waits for ever once the shutdown has begun"),
            () = stopping => unreachable!("it waits for ever"),
            () = certificates => unreachable!("it waits for ever"),
            () = tell_watchdog() => unreachable!("it tells for ever"),
            () = counting => unreachable!("it counts for ever"),
        };
        // Once more, where the end came with the word of it.
        tell_systemd(NotifyState::Stopping);
        if let Err(error) = self.usage.write().await {
            tracing::warn!("the last usage of callers cannot be written: {error}");
        }
        match end {
            End::Drained => {
                self.plugins.stop().await;
                self.traces.stop().await;
                stop(gateway, self.config.server.drain_timeout.0).await?;
            }
            End::Forced { connections } => {
                if let Some(embedder) = gateway.models.embedder() {
                    flush(embedder.cache()).await;
                }
                bail!("stopped with connections cut off: {connections}")
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Serves clients until the end; where `until_loaded` is there, from the moment when the models are loaded: whoever comes
    /// before waits, as during the restart, and is not refused.
    async fn listen(
        &self,
        listeners: Listeners,
        gateway: &Arc<Gateway>,
        until_loaded: Option<watch::Receiver<bool>>,
        shutdown: &Shutdown,
    ) -> End {
        if let Some(mut is_loaded) = until_loaded {
            tokio::select! {
                // An error means that the models will not be loaded.
                _ = is_loaded.wait_for(|loaded| *loaded) => {}
                () = shutdown.reached(Stage::Draining) => {}
            }
        }
        let router = http::router(Arc::clone(gateway));
        let of_network = Server {
            tls: self.tls.as_ref(),
            proxy_protocol: self.config.server.proxy_protocol,
            ..self.server(shutdown)
        };
        let of_network = connection::serve(listeners.listener, router.clone(), of_network);
        let Some(local) = listeners.local else {
            return of_network.await;
        };
        let of_machine = connection::serve(local, router, self.server(shutdown));
        let (one, other) = tokio::join!(of_network, of_machine);
        one.and(other)
    }

    /// The gateway of no models yet.
    fn gateway(&self, reloads: Reloads, shutdown: &Shutdown) -> Gateway {
        let state_folder = state_folder(&self.config, &self.source.environment);
        let models = ModelHost::new(Parts {
            load_context: self.load_context.clone(),
            metrics: self.metrics.clone(),
            fetcher: self.fetcher.clone(),
            served: state_folder.map(|folder| folder.join("served.json")),
            config: self.source.identity(),
        });
        Gateway {
            config: self.config.server.clone(),
            authenticator: Authenticator::new(&self.config.auth, Arc::clone(&self.plugins)),
            plugins: Arc::clone(&self.plugins),
            memory: Memory::new(self.config.server.max_bodies.bytes()),
            models: Arc::new(models),
            reloads,
            metrics: self.metrics.clone(),
            shutdown: shutdown.clone(),
            started: now_seconds(),
            traces: Arc::clone(&self.traces),
            usage: self.usage.clone(),
            slow: self.config.log.slow.map(|period| period.0),
        }
    }

    /// The parts that can be exchanged while the gateway serves.
    fn reloader(&self, models: &Arc<ModelHost>) -> Reloader {
        Reloader {
            source: self.source.clone(),
            config: self.config.clone(),
            plugins: Arc::clone(&self.plugins),
            seen: self.stamps.clone(),
            models: Arc::clone(models),
            metrics: self.metrics.clone(),
        }
    }

    /// Serves `POST /admin/reload` on an address of its own, where one is configured. Never ends.
    async fn administer(
        &self,
        listener: Option<Listener>,
        gateway: &Arc<Gateway>,
        shutdown: &Shutdown,
    ) {
        if let Some(listener) = listener {
            if let Some(address) = listener.address() {
                tracing::info!(%address, "POST http://{address}/admin/reload reloads the configuration; it asks for no key");
            }
            let router = http::admin_router(Arc::clone(gateway));
            connection::serve(listener, router, self.server(shutdown)).await;
        }
        std::future::pending().await
    }

    /// A server without what belongs to the network alone.
    fn server<'a>(&'a self, shutdown: &'a Shutdown) -> Server<'a> {
        Server {
            config: &self.config.server,
            shutdown,
            metrics: &self.metrics,
            tls: None,
            proxy_protocol: false,
        }
    }
}

/// Returns the folder of measurements and compiled plugins; none when neither the configuration nor the environment
/// names one.
#[must_use]
pub(crate) fn state_folder(config: &Config, environment: &Environment) -> Option<PathBuf> {
    let folder = config.server.state_dir.clone();
    folder.or_else(|| environment.state_folder())
}

/// The folder in which the usage of callers is counted; none where it is not kept.
pub(crate) fn usage_folder(config: &Config, environment: &Environment) -> Option<PathBuf> {
    let folder = state_folder(config, environment).filter(|_| config.usage.enabled);
    folder.map(|folder| folder.join("usage"))
}

/// Lists the problems of the models' folders, as `models.NAME: problem`.
fn folder_problems(config: &Config, fetches: bool) -> Vec<String> {
    let problem = |(name, model): (&String, &ModelConfig)| {
        if fetches && load::to_fetch(model).is_some() {
            return None;
        }
        load::plan(model)
            .err()
            .map(|error| format!("models.{name}: {error:#}"))
    };
    config.models.iter().filter_map(problem).collect()
}

/// Tells systemd that the process lives, as often as its unit's `WatchdogSec` wants. Never ends.
async fn tell_watchdog() {
    let Some(within) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        tell_systemd(NotifyState::Watchdog);
        tokio::time::sleep(within / 3).await;
    }
}

/// Tells systemd how far the process is, where it was started by a unit of `Type=notify`.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("systemd cannot be told the state of the process: {error}");
    }
}
