//! The result of a reload, for those who asked for it.

use serde::Serialize;

use crate::model_host::Applied;

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
    /// A reload that changed nothing.
    pub(super) fn refused(problems: Vec<String>) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }

    /// A reload whose configuration is in force, but for what failed.
    pub(super) fn of(models: Applied, plugins: PluginReport, needs_restart: Vec<String>) -> Self {
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
