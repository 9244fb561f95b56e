//! The plugins of a start: what they need of the gateway, and whether it can begin with them.

use std::sync::Arc;

use anyhow::{Context, bail};
use embedgate_config::{AuthMode, Config, Environment};
use embedgate_metrics::Metrics;
use embedgate_plugin_host::{INIT_TIMEOUT, PluginContext, Plugins, stamps};

use super::{App, state_folder};

impl App {
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
}

/// Returns the facts of the gateway that plugins need.
#[must_use]
pub(crate) fn plugin_context(
    config: &Config,
    environment: &Environment,
    metrics: &Metrics,
) -> PluginContext {
    PluginContext {
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
