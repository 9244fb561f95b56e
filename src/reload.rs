//! Plugins, keys and limits that change while the gateway serves: on SIGHUP, and when a plugin's file changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use embedgate_config::{AuthMode, Config, ConfigError, Environment};
use embedgate_plugin_host::{Plugins, Reloaded, Stamps, stamps};
use tokio::{
    signal::unix::Signal,
    task::{JoinError, JoinHandle},
};

use crate::{
    auth::Authenticator,
    shutdown::{Shutdown, Stage},
};

/// How often the plugins' files are looked at: their lengths and times, a microsecond each.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the configuration came from, to read it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
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
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), &self.environment)
    }
}

/// What can be exchanged while the gateway serves.
pub(crate) struct Reloader {
    /// Where a new configuration comes from.
    pub source: Source,
    /// The configuration in force.
    pub config: Config,
    /// Gets the plugins.
    pub plugins: Arc<Plugins>,
    /// Their files when they were loaded last.
    pub seen: Option<Stamps>,
}

impl Reloader {
    /// Reloads on each signal and for each changed file, until the shutdown begins. Keys are reloaded at once, even while
    /// plugins are being loaded.
    pub(crate) async fn watch(
        mut self,
        authenticator: &Authenticator,
        hangups: &mut Signal,
        shutdown: &Shutdown,
    ) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut loading: Option<JoinHandle<Reloaded>> = None;
        let mut is_due = false;
        loop {
            if is_due && loading.is_none() {
                is_due = false;
                loading = Some(self.start_loading());
            }
            tokio::select! {
                () = shutdown.reached(Stage::Draining) => return,
                Some(()) = hangups.recv() => {
                    tracing::info!("received SIGHUP: reloading plugins, keys and limits");
                    is_due |= self.reload_config(authenticator);
                }
                _ = clock.tick(), if !self.config.plugins.is_empty() => {
                    is_due |= self.seen.as_ref() != Some(&stamps(&self.config.plugins));
                }
                done = finished(&mut loading), if loading.is_some() => {
                    loading = None;
                    match done {
                        Ok(reloaded) => self.say(reloaded, authenticator),
                        Err(error) => tracing::error!("the plugins stay as they were: {error}"),
                    }
                }
            }
        }
    }

    /// Whether there is a configuration to load plugins of.
    fn reload_config(&mut self, authenticator: &Authenticator) -> bool {
        let config = match self.source.load() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                return false;
            }
        };
        for section in unmoved(&self.config, &config) {
            tracing::warn!("[{section}] has changed, which needs a restart");
        }
        config.say_doubts();
        // Keys first: whoever was taken out must not come in, even where a plugin cannot be loaded.
        if config.auth != self.config.auth {
            authenticator.reload(&config.auth);
            tracing::info!(keys = config.auth.keys.len(), "keys and limits reloaded");
            if config.auth.mode == Some(AuthMode::None) && self.config.auth.mode != config.auth.mode
            {
                tracing::warn!("auth.mode is \"none\" now: anybody may use this server");
            }
        }
        self.config.auth = config.auth;
        self.config.plugins = config.plugins;
        true
    }

    fn start_loading(&mut self) -> JoinHandle<Reloaded> {
        let (plugins, configs) = (Arc::clone(&self.plugins), self.config.plugins.clone());
        // Before they are read: a file that changes from now on is seen.
        self.seen = Some(stamps(&configs));
        tokio::task::spawn_blocking(move || plugins.load(&configs))
    }

    fn say(&self, reloaded: Reloaded, authenticator: &Authenticator) {
        let Reloaded {
            loaded,
            removed,
            failed,
        } = reloaded;
        for problem in &failed {
            tracing::error!("{problem}; what was loaded before still serves");
        }
        for name in removed {
            tracing::info!(plugin = name, "plugin {name} removed");
        }
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
        tracing::info!(
            "plugins reloaded: {} new, {} failed, the rest as it was",
            loaded.len(),
            failed.len()
        );
    }
}

/// Waits for a task, where there is one.
async fn finished(loading: &mut Option<JoinHandle<Reloaded>>) -> Result<Reloaded, JoinError> {
    match loading {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The sections that differ and take effect at a start only.
fn unmoved(before: &Config, now: &Config) -> Vec<&'static str> {
    let all = [
        ("default_model", before.default_model != now.default_model),
        ("unknown_model", before.unknown_model != now.unknown_model),
        ("server", before.server != now.server),
        ("log", before.log != now.log),
        ("cache", before.cache != now.cache),
        ("onnxruntime", before.onnxruntime != now.onnxruntime),
        ("onednn", before.onednn != now.onednn),
        ("cuda", before.cuda != now.cuda),
        ("models", before.models != now.models),
    ];
    all.into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
}
