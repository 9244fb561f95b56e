//! The changes while the gateway serves. The configuration is read again on SIGHUP, by `POST /admin/reload` and, where
//! that is asked for, when its file changes; plugins also when their files do.

pub(crate) mod ask;
mod load;
pub(crate) mod report;
mod say;
pub(crate) mod source;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use embedgate_config::{AuthMode, Config};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::{Plugins, Stamps, stamps};
use tokio::{
    signal::unix::Signal,
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use self::{
    ask::{Reply, answer},
    load::{Due, Loaded},
    report::Report,
    source::Source,
};
use crate::{
    auth::Authenticator,
    model_host::ModelHost,
    shutdown::{Shutdown, Stage},
};

/// Time between two looks at files: at their lengths and times, a microsecond each.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        config.log_warnings();
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
}

/// A file's length and when it was changed; none where it is not there.
pub(crate) fn changed(file: &Path) -> Option<(u64, SystemTime)> {
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
