//! Says what a load did: in the log, and to those who asked.

use embedgate_config::AuthMode;
use tokio::task::JoinError;

use super::{
    Reloader,
    ask::{Reply, answer},
    load::Loaded,
    report::{Outcome, Report},
};
use crate::auth::Authenticator;

impl Reloader {
    /// Logs the end of a load, and answers those who wait for it.
    pub(super) fn say(
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
