//! No plugins: what the gateway asks where it was built without an engine.

use std::{collections::BTreeMap, sync::Arc};

use embedgate_config::PluginConfig;
use embedgate_request::{EmbedRequest, Error, Identity, Limits, RequestContext, Route};

use crate::interface::{PluginContext, Reloaded, RequestHead, Summary};

/// Plugins of a build that has none: nobody is known by them, nothing changes, nobody is told.
pub struct Plugins;

impl Plugins {
    /// None, for ever.
    #[must_use]
    pub fn new(_: PluginContext) -> Self {
        Self
    }

    /// Refuses each that is configured.
    pub fn load(&self, configs: &BTreeMap<String, PluginConfig>) -> Reloaded {
        let failed = configs.keys().map(|name| {
            format!(
                "plugins.{name}: this embedgate was built without plugins: build it with the cargo feature plugins"
            )
        });
        Reloaded {
            failed: failed.collect(),
            ..Reloaded::default()
        }
    }

    /// No.
    #[must_use]
    pub fn has_authenticators(&self) -> bool {
        false
    }

    /// No.
    #[must_use]
    pub fn has_preprocessors(&self) -> bool {
        false
    }

    /// No.
    #[must_use]
    pub fn has_observers(&self) -> bool {
        false
    }

    /// Nobody was authenticated.
    pub fn forget_callers(&self) {}

    /// Nobody is known.
    ///
    /// # Errors
    /// Never.
    pub async fn authenticate(
        &self,
        _: Option<Route>,
        _: &Limits,
        _: RequestHead<'_>,
    ) -> Result<Option<Arc<Identity>>, Error> {
        Ok(None)
    }

    /// Changes nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn preprocess(
        &self,
        _: &RequestContext,
        _: &mut EmbedRequest,
        _: impl Fn(&str) -> Vec<String>,
    ) -> Result<Vec<(String, String)>, Error> {
        Ok(Vec::new())
    }

    /// Tells nobody.
    pub fn observe(&self, _: Summary) {}

    /// Ends nothing.
    pub async fn stop(&self) {}
}
