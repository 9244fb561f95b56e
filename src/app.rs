//! Composes everything and serves it: the only place that knows all parts.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use embedgate_config::{AuthMode, Config, Environment, ModelConfig};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::{INIT_TIMEOUT, PluginSurroundings, Plugins, Stamps, stamps};
use sd_notify::NotifyState;
use tokio::{net::TcpListener, signal::unix::Signal};

use crate::{
    auth::Authenticator,
    cache::{EmbeddingCache, file::WarmFile, now_seconds},
    embed::Embedder,
    http::{
        self, Gateway,
        connection::{self, End},
    },
    memory::Memory,
    model::{Entry, Model, State, devices, load, surroundings::Surroundings},
    model_host::{Fetcher, ModelHost, Parts},
    reload::{Reloader, Reloads, Source},
    shutdown::{Shutdown, Stage},
};

/// Longest time that the end of the process waits for the cache's file.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The sockets where requests arrive.
pub(crate) struct Listeners {
    /// The socket of clients.
    pub(crate) listener: TcpListener,
    /// The socket of administrators, when they have an address of their own.
    pub(crate) admin: Option<TcpListener>,
}

/// A configured server, not yet listening.
pub(crate) struct App {
    config: Config,
    surroundings: Surroundings,
    source: Source,
    metrics: Metrics,
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
        let surroundings = Surroundings::new(&config, &source.environment);
        let metrics = Metrics::new();
        let plugins = Arc::new(Plugins::new(plugin_surroundings(
            &config,
            &source.environment,
            &metrics,
        )));
        Ok(Self {
            config,
            surroundings,
            source,
            metrics,
            plugins,
            stamps: None,
            fetcher,
        })
    }

    /// Sets whether the speed of the models is measured once more, in place of the kept measurements.
    #[must_use]
    pub(crate) fn recalibrating(mut self, is_asked: bool) -> Self {
        self.surroundings.recalibrate = is_asked;
        self
    }

    /// Loads the plugins.
    ///
    /// # Errors
    /// Every plugin that cannot be loaded: without one of them, requests would not be what they are meant to be.
    pub(crate) async fn load_plugins(&mut self) -> anyhow::Result<()> {
        let (plugins, configs) = (Arc::clone(&self.plugins), self.config.plugins.clone());
        self.stamps = Some(stamps(&configs));
        let loading = tokio::task::spawn_blocking(move || plugins.load(&configs));
        let failed = loading.await.context("loading plugins panicked")?.failed;
        check_plugins(&self.config, &self.plugins, failed)
    }

    /// Listens at once, loads the models, serves until the shutdown begins, and cleans up.
    ///
    /// Until the models are loaded, requests get 503 with Retry-After. At each of `hangups` the configuration is read again.
    ///
    /// # Errors
    /// When no model can be loaded (or not all, where all are required), or requests had to be cut off at the end.
    pub(crate) async fn serve(
        self,
        Listeners { listener, admin }: Listeners,
        shutdown: Shutdown,
        mut hangups: Signal,
    ) -> anyhow::Result<()> {
        let metrics = self.metrics.clone();
        let models = Arc::new(ModelHost::new(Parts {
            surroundings: self.surroundings.clone(),
            metrics: metrics.clone(),
            fetcher: self.fetcher.clone(),
            served: state_folder(&self.config, &self.source.environment)
                .map(|folder| folder.join("served.json")),
            config: self.source.identity(),
        }));
        let (reloads, asking) = Reloads::channel();
        let gateway = Arc::new(Gateway {
            config: self.config.server.clone(),
            authenticator: Authenticator::new(&self.config.auth, Arc::clone(&self.plugins)),
            plugins: Arc::clone(&self.plugins),
            memory: Memory::new(self.config.server.max_bodies.bytes()),
            models: Arc::clone(&models),
            reloads,
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
            started: now_seconds(),
        });
        self.announce(&listener, &gateway)?;
        tell_systemd(NotifyState::Ready);
        let address = listener.local_addr().ok();
        let router = http::router(Arc::clone(&gateway));
        let config = &self.config.server;
        let serving = connection::serve(listener, router, config, &shutdown, &metrics);
        let administering = self.administer(admin, &gateway, &shutdown);
        let loading = async {
            self.load(&models, &metrics).await?;
            let embedder = models.embedder();
            let example = embedder
                .zip(address)
                .and_then(|(embedder, address)| example(&embedder, address, &gateway));
            self.say_ready(&models);
            if let Some(example) = example {
                tracing::info!("try it: {example}");
            }
            self.advise().await;
            models.keep().await;
            Ok(())
        };
        let reloader = Reloader {
            source: self.source.clone(),
            config: self.config.clone(),
            plugins: Arc::clone(&self.plugins),
            seen: self.stamps.clone(),
            models: Arc::clone(&models),
            metrics: metrics.clone(),
        };
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
        let end = tokio::select! {
            end = serving => end,
            failed = loading => return failed,
            () = administering => unreachable!("it waits for ever"),
            () = reloading => unreachable!("it waits for ever once the shutdown has begun"),
            () = stopping => unreachable!("it waits for ever"),
        };
        // Once more, where the end came with the word of it.
        tell_systemd(NotifyState::Stopping);
        match end {
            End::Drained => {
                self.plugins.stop().await;
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

    fn say_ready(&self, models: &ModelHost) {
        let is_fetching = |entry: &&Entry| matches!(entry.state, State::Fetching(_));
        let n = models.embedder().map_or(0, |embedder| {
            let entries = embedder.registry().entries().iter();
            entries.filter(is_fetching).count()
        });
        match n {
            0 => tracing::info!("ready"),
            n => tracing::info!(
                "ready, but for {n} of {} models, which are being fetched",
                self.config.models.len()
            ),
        }
    }

    /// Loads every model, one after another: two at once would peak in memory.
    async fn load(&self, models: &Arc<ModelHost>, metrics: &Metrics) -> anyhow::Result<()> {
        let file = WarmFile::open(&self.config.cache, metrics);
        let cache = EmbeddingCache::new(&self.config.cache, file, metrics);
        let applied = models.apply(&self.config, &cache).await;
        for failed in applied.failed() {
            tracing::error!("{failed}");
        }
        if self.config.server.require_all_models
            && let Some(failed) = applied.failed().next()
        {
            bail!(failed);
        }
        let embedder = models.embedder();
        let can_serve = embedder.is_some_and(|embedder| {
            let mut entries = embedder.registry().entries().iter();
            entries.any(|entry| !matches!(entry.state, State::Failed(_)))
        });
        if !can_serve {
            bail!("no model could be loaded: see the errors above");
        }
        Ok(())
    }

    /// Serves `POST /admin/reload` on an address of its own, where one is configured. Never ends.
    async fn administer(
        &self,
        listener: Option<TcpListener>,
        gateway: &Arc<Gateway>,
        shutdown: &Shutdown,
    ) {
        if let Some(listener) = listener {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "POST http://{address}/admin/reload reloads the configuration; it asks for no key");
            }
            let router = http::admin_router(Arc::clone(gateway));
            let config = &self.config.server;
            connection::serve(listener, router, config, shutdown, &self.metrics).await;
        }
        std::future::pending().await
    }

    /// Says how a card is used that is there and idle.
    async fn advise(&self) {
        let models: Vec<_> = self.config.models.values().cloned().collect();
        let surroundings = self.surroundings.clone();
        // The driver takes its time to start.
        let looking = tokio::task::spawn_blocking(move || devices::advice(&models, &surroundings));
        if let Ok(Some(advice)) = looking.await {
            tracing::info!("{advice}");
        }
    }

    fn announce(&self, listener: &TcpListener, gateway: &Gateway) -> anyhow::Result<()> {
        let address = listener
            .local_addr()
            .context("the listener has no address")?;
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(%address, version, "embedgate {version} listens on http://{address}/v1");
        if address.ip().is_loopback() {
            tracing::info!(
                "containers and other machines cannot reach {address}: for those set server.listen = \"0.0.0.0:{}\"",
                address.port()
            );
        } else {
            tracing::info!(
                "from Docker on this machine: http://host.docker.internal:{}/v1",
                address.port()
            );
            if gateway.authenticator.is_open() {
                tracing::warn!(
                    "anybody who reaches {address} may use this server: auth.mode is \"none\""
                );
            }
        }
        self.config.say_doubts();
        for name in self
            .config
            .models
            .iter()
            .flat_map(|(name, model)| model.aliases.iter().chain([name]))
        {
            if name.contains("___") || name.contains('@') {
                tracing::warn!(
                    model.name = name,
                    "RAGFlow cuts model names at ___ and @: it cannot use \"{name}\""
                );
            }
        }
        Ok(())
    }
}

/// A command that asks the server for a vector of its default model, or of the first one.
fn example(embedder: &Embedder, address: SocketAddr, gateway: &Gateway) -> Option<String> {
    let registry = embedder.registry();
    let gives_vectors = |model: &&Arc<Model>| model.info.outputs.dense;
    let default = registry.resolve(None).ok();
    let model = default.filter(gives_vectors);
    let model = model.or_else(|| registry.loaded().find(gives_vectors))?;
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let key = match gateway.authenticator.is_open() {
        true => "",
        false => " -H \"Authorization: Bearer $KEY\"",
    };
    let body = serde_json::json!({"model": model.name, "input": "hello"});
    Some(format!(
        "curl http://{host}:{}/v1/embeddings -H \"Content-Type: application/json\"{key} -d '{body}'",
        address.port()
    ))
}

/// Returns the folder of measurements and compiled plugins; none when neither the configuration nor the environment
/// names one.
#[must_use]
pub(crate) fn state_folder(config: &Config, environment: &Environment) -> Option<PathBuf> {
    let folder = config.server.state_dir.clone();
    folder.or_else(|| environment.state_folder())
}

/// Returns the facts of the gateway that plugins need.
#[must_use]
pub(crate) fn plugin_surroundings(
    config: &Config,
    environment: &Environment,
    metrics: &Metrics,
) -> PluginSurroundings {
    PluginSurroundings {
        state_folder: state_folder(config, environment).map(|folder| folder.join("plugins")),
        max_body: config.server.max_body.bytes(),
        metrics: metrics.clone(),
        init_timeout: INIT_TIMEOUT,
    }
}

/// Reports the plugins that cannot be loaded, and what only they could tell of who may come in.
///
/// # Errors
/// Every problem, in one message.
pub(crate) fn check_plugins(
    config: &Config,
    plugins: &Plugins,
    mut problems: Vec<String>,
) -> anyhow::Result<()> {
    let auth = &config.auth;
    if problems.is_empty() {
        let is_open = auth.mode == Some(AuthMode::None);
        if is_open && plugins.has_authenticators() {
            problems.push("auth.mode is \"none\", and a plugin authenticates: remove one of the two, or name the plugin's other hooks in its hooks".into());
        }
        if auth.lets_nobody_in(plugins.has_authenticators()) {
            problems.push("auth: there is no key, and no plugin authenticates: set keys = [\"${EMBEDGATE_KEY}\"], or mode = \"none\" to let anybody in".into());
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("plugins that cannot be used:\n  {}", problems.join("\n  "))
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

/// Tells systemd how far the process is, where it was started by a unit of `Type=notify`.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("systemd cannot be told the state of the process: {error}");
    }
}

/// Writes what the cache's file does not have yet; a disk that stands still does not keep the process.
async fn flush(cache: &EmbeddingCache) {
    if tokio::time::timeout(FLUSH_TIMEOUT, cache.flush())
        .await
        .is_err()
    {
        tracing::warn!("the cache's file takes too long: its last results are not in it");
    }
}

/// Ends the models' queues and joins their workers. A batch in flight is waited for, but not for ever.
async fn stop(gateway: Arc<Gateway>, timeout: Duration) -> anyhow::Result<()> {
    let shutdown = gateway.shutdown.clone();
    // Every connection has ended, so nobody else holds the models.
    let Some(embedder) = gateway.models.take().and_then(Arc::into_inner) else {
        tracing::warn!("something still uses the models: they end with the process");
        return Ok(());
    };
    let cache = embedder.cache().clone();
    // Now, whatever becomes of the batches in flight; and again, with what they gave.
    flush(&cache).await;
    let stopping = tokio::task::spawn_blocking(move || embedder.stop());
    let stopping = async {
        let stopped = stopping.await;
        flush(&cache).await;
        stopped
    };
    tokio::select! {
        stopped = stopping => stopped.context("the models did not stop cleanly"),
        () = tokio::time::sleep(timeout) => bail!("stopped with a batch still running"),
        () = shutdown.reached(Stage::Forced) => bail!("stopped with a batch still running"),
    }
}
