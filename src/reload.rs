//! Plugins, keys and limits that change while the gateway serves: on SIGHUP, and when a plugin's file changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::Signal;

use crate::{
    auth::Authenticator,
    config::{Config, ConfigError, Environment},
    plugin::{Plugins, Reloaded, stamps},
    shutdown::{Shutdown, Stage},
};

/// How often the plugins' files are looked at: their lengths and times, a microsecond each.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the configuration came from, to read it again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that was named.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: Environment,
}

impl Source {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Every problem with it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), &self.environment)
    }
}

/// What can be exchanged while the gateway serves.
pub struct Reloader {
    /// Where a new configuration comes from.
    pub source: Source,
    /// The configuration in force.
    pub config: Config,
    /// Gets the plugins.
    pub plugins: Arc<Plugins>,
}

impl Reloader {
    /// Reloads on each signal and for each changed file, until the shutdown begins.
    pub async fn watch(
        mut self,
        authenticator: &Authenticator,
        hangups: &mut Signal,
        shutdown: &Shutdown,
    ) {
        let mut seen = stamps(&self.config.plugins);
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.reached(Stage::Draining) => return,
                Some(()) = hangups.recv() => {
                    tracing::info!("received SIGHUP: reloading plugins, keys and limits");
                    self.reload_config(authenticator).await;
                    seen = stamps(&self.config.plugins);
                }
                _ = clock.tick(), if !self.config.plugins.is_empty() => {
                    let now = stamps(&self.config.plugins);
                    if now != seen {
                        seen = now;
                        self.load_plugins(&self.config.clone()).await;
                    }
                }
            }
        }
    }

    async fn reload_config(&mut self, authenticator: &Authenticator) {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                return;
            }
        };
        for section in unmoved(&self.config, &config) {
            tracing::warn!("[{section}] has changed, which needs a restart");
        }
        // Keys first: whoever was taken out must not come in, even where a plugin cannot be loaded.
        if config.auth != self.config.auth {
            authenticator.reload(&config.auth);
            tracing::info!(keys = config.auth.keys.len(), "keys and limits reloaded");
        }
        self.load_plugins(&config).await;
        self.config.auth = config.auth;
        self.config.plugins = config.plugins;
    }

    async fn load_plugins(&self, config: &Config) {
        let (plugins, configs) = (Arc::clone(&self.plugins), config.plugins.clone());
        let loading = tokio::task::spawn_blocking(move || plugins.load(&configs));
        let Reloaded {
            loaded,
            removed,
            failed,
        } = match loading.await {
            Ok(reloaded) => reloaded,
            Err(error) => {
                tracing::error!("the plugins stay as they were: loading them failed: {error}");
                return;
            }
        };
        for problem in failed {
            tracing::error!("{problem}; what was loaded before still serves");
        }
        for name in removed {
            tracing::info!(plugin = name, "plugin {name} removed");
        }
        tracing::info!("plugins reloaded: {} new, the rest as it was", loaded.len());
    }
}

/// The sections that differ and take effect at a start only.
fn unmoved(before: &Config, now: &Config) -> Vec<&'static str> {
    let all = [
        ("default_model", before.default_model != now.default_model),
        ("server", before.server != now.server),
        ("log", before.log != now.log),
        ("cache", before.cache != now.cache),
        ("onnxruntime", before.onnxruntime != now.onnxruntime),
        ("models", before.models != now.models),
    ];
    all.into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
}
