//! The changes while the gateway serves. The configuration is read again on SIGHUP, by `POST /admin/reload` and, where
//! that is asked for, when its file changes; plugins also when their files do.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use embedgate_config::{AuthMode, Config, ConfigError, Environment};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::{Plugins, Stamps, stamps};
use embedgate_request::Error;
use serde::Serialize;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use crate::{
    auth::Authenticator,
    model_host::{Applied, ModelHost},
    shutdown::{Shutdown, Stage},
};

/// Time between two looks at files: at their lengths and times, a microsecond each.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many may ask for a reload at once.
const MOST_ASKED: usize = 64;

/// The source of the configuration, for reading it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    /// The file that was named.
    pub file: Option<PathBuf>,
    /// The configuration that replaces a file: the command line's own model.
    pub made: Option<Config>,
    /// The address from the command line that replaces `server.listen`.
    pub listen: Option<SocketAddr>,
    /// The process's environment.
    pub environment: Environment,
}

impl Source {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every problem with it.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.made {
            Some(made) => made.clone(),
            None => Config::load(self.file.as_deref(), &self.environment)?,
        };
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        Ok(config)
    }

    /// Returns the path that tells this configuration from those of other gateways on this machine.
    #[must_use]
    pub(crate) fn identity(&self) -> PathBuf {
        let path = |made: &Config| made.models.values().next().map(|model| model.path.clone());
        match &self.made {
            Some(made) => path(made).unwrap_or_default(),
            None => self.path(),
        }
    }

    /// The configuration's own file; empty where there is none.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        match &self.made {
            Some(_) => PathBuf::new(),
            None => Config::find(self.file.as_deref(), &self.environment).unwrap_or_default(),
        }
    }
}

/// The share of a configuration that a reload put in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// All of it is in force.
    Reloaded,
    /// A part of it failed.
    Partly,
    /// Nothing was changed.
    #[default]
    Refused,
}

/// The result of a reload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The share that is in force.
    pub status: Outcome,
    /// The problems of the configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The change of each model.
    pub models: Applied,
    /// The changes of plugins.
    pub plugins: PluginReport,
    /// Keys that have changed and count after a restart only.
    pub needs_restart: Vec<String>,
}

/// The changes that a reload made to plugins.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PluginReport {
    /// The plugins that are new, or whose file or settings are.
    pub loaded: Vec<String>,
    /// The plugins that the configuration does not name any more.
    pub removed: Vec<String>,
    /// The problems of plugins that could not be loaded; the plugins loaded before still serve.
    pub failed: Vec<String>,
}

impl Report {
    fn refused(problems: Vec<String>) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }

    fn of(models: Applied, plugins: PluginReport, needs_restart: Vec<String>) -> Self {
        let has_failed = models.failed().next().is_some() || !plugins.failed.is_empty();
        Self {
            status: match has_failed {
                true => Outcome::Partly,
                false => Outcome::Reloaded,
            },
            problems: Vec::new(),
            models,
            plugins,
            needs_restart,
        }
    }
}

type Reply = oneshot::Sender<Arc<Report>>;

/// Asks for reloads.
#[derive(Clone, Debug)]
pub(crate) struct Reloads(mpsc::Sender<Reply>);

impl Reloads {
    /// Makes the handle that asks for reloads, and the channel where the requests arrive.
    #[must_use]
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Reply>) {
        let (asked, asking) = mpsc::channel(MOST_ASKED);
        (Self(asked), asking)
    }

    /// Reads the configuration again, and waits until it is in force.
    ///
    /// # Errors
    /// `Unavailable` at the end of the process.
    pub(crate) async fn reload(&self) -> Result<Arc<Report>, Error> {
        let over = || {
            Error::unavailable("embedgate is shutting down", Duration::from_secs(1))
                .with_code("shutting_down")
        };
        let (reply, report) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| over())?;
        report.await.map_err(|_| over())
    }
}

/// The parts that can be exchanged while the gateway serves.
pub(crate) struct Reloader {
    /// The source of a new configuration.
    pub source: Source,
    /// The configuration in force.
    pub config: Config,
    /// Gets the plugins.
    pub plugins: Arc<Plugins>,
    /// Their files when they were loaded last.
    pub seen: Option<Stamps>,
    /// Gets the models.
    pub models: Arc<ModelHost>,
    /// The process's metrics.
    pub metrics: Metrics,
}

/// The parts that have to be loaded.
#[derive(Clone, Debug, Default)]
struct Due {
    plugins: bool,
    models: bool,
    /// The keys that have changed and are not loaded.
    needs_restart: Vec<String>,
}

/// The result of a load.
struct Loaded {
    models: Option<Applied>,
    plugins: PluginReport,
    needs_restart: Vec<String>,
}

impl Reloader {
    /// Reloads on each signal, whenever somebody asks, and for each changed file, until the shutdown begins. Keys are reloaded at
    /// once, even while models and plugins are being loaded.
    pub(crate) async fn watch(
        mut self,
        authenticator: &Authenticator,
        hangups: &mut Signal,
        mut asking: mpsc::Receiver<Reply>,
        shutdown: &Shutdown,
    ) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut loading: Option<JoinHandle<Loaded>> = None;
        let (mut waiting, mut served): (Vec<Reply>, Vec<Reply>) = (Vec::new(), Vec::new());
        let mut due = Due::default();
        let file = self.source.path();
        let mut seen = changed(&file);
        loop {
            if (due.plugins || due.models) && loading.is_none() {
                loading = Some(self.start_loading(std::mem::take(&mut due)));
                served = std::mem::take(&mut waiting);
            }
            // Who wants to know, where somebody asks.
            let mut asked: Option<Option<Reply>> = None;
            tokio::select! {
                () = shutdown.reached(Stage::Draining) => return,
                Some(()) = hangups.recv() => {
                    tracing::info!("received SIGHUP: reloading models, plugins, keys and limits");
                    asked = Some(None);
                }
                Some(reply) = asking.recv() => {
                    tracing::info!("asked by /admin/reload: reloading models, plugins, keys and limits");
                    asked = Some(Some(reply));
                }
                _ = clock.tick() => {
                    if self.config.server.reload_on_change && changed(&file) != seen {
                        tracing::info!("{} has changed: reloading", file.display());
                        asked = Some(None);
                    }
                    due.plugins |= !self.config.plugins.is_empty()
                        && self.seen.as_ref() != Some(&stamps(&self.config.plugins));
                }
                done = finished(&mut loading), if loading.is_some() => {
                    loading = None;
                    self.say(done, authenticator, std::mem::take(&mut served));
                }
            }
            let Some(reply) = asked else {
                continue;
            };
            seen = changed(&file);
            match self.reload_config(authenticator) {
                Ok(needs_restart) => {
                    waiting.extend(reply);
                    due = Due {
                        plugins: true,
                        models: true,
                        needs_restart,
                    };
                }
                Err(problems) => answer(reply, Report::refused(problems)),
            }
        }
    }

    /// Reads the configuration, and takes its keys. Returns the keys of it that need a restart.
    fn reload_config(&mut self, authenticator: &Authenticator) -> Result<Vec<String>, Vec<String>> {
        let config = self.source.load().map_err(|error| {
            tracing::error!("the configuration stays as it was: {error}");
            let problems = error.problems.iter();
            problems.map(ToString::to_string).collect::<Vec<_>>()
        })?;
        let live = self.config.with_live_settings_of(&config);
        let needs_restart = live.differing_keys(&config);
        for key in &needs_restart {
            tracing::warn!("{key} has changed, which needs a restart");
        }
        config.say_doubts();
        // Keys first: whoever was taken out must not come in, even where a plugin cannot be loaded.
        if live.auth != self.config.auth {
            authenticator.reload(&live.auth);
            tracing::info!(keys = live.auth.keys.len(), "keys and limits reloaded");
            if live.auth.mode == Some(AuthMode::None) && self.config.auth.mode != live.auth.mode {
                tracing::warn!("auth.mode is \"none\" now: anybody may use this server");
            }
        }
        self.config = live;
        Ok(needs_restart)
    }

    fn start_loading(&mut self, due: Due) -> JoinHandle<Loaded> {
        let (plugins, models) = (Arc::clone(&self.plugins), Arc::clone(&self.models));
        let (config, metrics) = (self.config.clone(), self.metrics.clone());
        if due.plugins {
            // Before they are read: a file that changes from now on is seen.
            self.seen = Some(stamps(&config.plugins));
        }
        tokio::spawn(async move {
            let of_plugins = match due.plugins {
                true => load_plugins(plugins, &config).await,
                false => PluginReport::default(),
            };
            let of_models = match due.models {
                true => load_models(&models, &config, &metrics).await,
                false => None,
            };
            Loaded {
                models: of_models,
                plugins: of_plugins,
                needs_restart: due.needs_restart,
            }
        })
    }

    fn say(
        &self,
        done: Result<Loaded, JoinError>,
        authenticator: &Authenticator,
        served: Vec<Reply>,
    ) {
        let Loaded {
            models,
            plugins,
            needs_restart,
        } = match done {
            Ok(loaded) => loaded,
            Err(error) => {
                let problem = format!("a fault of embedgate ended the reload: {error}");
                tracing::error!("{problem}");
                return answer(served, Report::refused(vec![problem]));
            }
        };
        for problem in &plugins.failed {
            tracing::error!("{problem}; what was loaded before still serves");
        }
        for name in &plugins.removed {
            tracing::info!(plugin = name, "plugin {name} removed");
        }
        self.say_who_comes_in(authenticator);
        if !self.config.plugins.is_empty() || !plugins.removed.is_empty() {
            tracing::info!(
                "plugins reloaded: {} new, {} failed, the rest as it was",
                plugins.loaded.len(),
                plugins.failed.len()
            );
        }
        let Some(models) = models else {
            return;
        };
        models.say();
        let report = Report::of(models, plugins, needs_restart);
        match report.status {
            Outcome::Partly => tracing::error!("the configuration is reloaded in part: see above"),
            _ => tracing::info!("the configuration is reloaded"),
        }
        answer(served, report);
    }

    fn say_who_comes_in(&self, authenticator: &Authenticator) {
        if self.config.auth.mode == Some(AuthMode::None) && !authenticator.is_open() {
            tracing::error!(
                "auth.mode is \"none\" and a plugin authenticates: it is asked, and the next start refuses this configuration"
            );
        }
        let has_authenticators = self.plugins.has_authenticators();
        if self.config.auth.lets_nobody_in(has_authenticators) {
            tracing::error!(
                "nobody can come in: there is no key, and no plugin authenticates; set auth.keys, or auth.mode = \"none\" to let anybody in"
            );
        }
    }
}

/// Tells those who asked what a reload did.
fn answer(replies: impl IntoIterator<Item = Reply>, report: Report) {
    let report = Arc::new(report);
    for reply in replies {
        // An error means that who asked has left.
        drop(reply.send(Arc::clone(&report)));
    }
}

async fn load_plugins(plugins: Arc<Plugins>, config: &Config) -> PluginReport {
    let configs = config.plugins.clone();
    match tokio::task::spawn_blocking(move || plugins.load(&configs)).await {
        Ok(reloaded) => PluginReport {
            loaded: reloaded.loaded,
            removed: reloaded.removed,
            failed: reloaded.failed,
        },
        Err(error) => PluginReport {
            failed: vec![format!("the plugins stay as they were: {error}")],
            ..PluginReport::default()
        },
    }
}

/// Waits for the first models first. None at the end of the process.
async fn load_models(
    models: &Arc<ModelHost>,
    config: &Config,
    metrics: &Metrics,
) -> Option<Applied> {
    models.started().await;
    let cache = models.embedder()?.cache().clone();
    let cache = match cache.has_sizes(&config.cache) {
        true => cache,
        false => cache.resized(&config.cache, metrics).await,
    };
    Some(models.apply(config, &cache).await)
}

/// A file's length and when it was changed; none where it is not there.
fn changed(file: &std::path::Path) -> Option<(u64, SystemTime)> {
    let metadata = file.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

/// Waits for a task, where there is one.
async fn finished(loading: &mut Option<JoinHandle<Loaded>>) -> Result<Loaded, JoinError> {
    match loading {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
