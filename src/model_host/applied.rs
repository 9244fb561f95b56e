//! The changes that a reload made to models, for the log and for the caller of the reload.

use std::collections::BTreeMap;

use serde::Serialize;

/// The change of each model.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Applied(pub BTreeMap<String, Change>);

/// The change that a reload made to a model.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum Change {
    /// It is as it was.
    Kept,
    /// It was loaded, under a name that no model had, or whose model could not be loaded before.
    Added,
    /// It was loaded in the place of the one before.
    Exchanged,
    /// It has other settings for requests; nothing had to be loaded.
    Adjusted,
    /// It is loaded when a request names it.
    OnDemand,
    /// It is being fetched, and loaded then.
    Fetching,
    /// The configuration does not name it any more.
    Removed,
    /// It could not be loaded.
    Failed {
        /// The reason of the failure.
        reason: String,
        /// True when the model before it still serves.
        serves_as_before: bool,
    },
}

impl Applied {
    /// Lists the models that could not be loaded, as `model NAME: reason`.
    pub(crate) fn failed(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(name, change)| match change {
            Change::Failed { reason, .. } => Some(format!("model {name}: {reason}")),
            _ => None,
        })
    }

    /// Logs it: a line for each model that is not as it was.
    pub(crate) fn say(&self) {
        for (name, change) in &self.0 {
            let words = match change {
                Change::Kept => continue,
                Change::Added => "added",
                Change::Exchanged => "exchanged",
                Change::Adjusted => "has other settings",
                Change::OnDemand => "is loaded on demand",
                Change::Fetching => "is being fetched",
                Change::Removed => "removed",
                Change::Failed {
                    reason,
                    serves_as_before,
                } => {
                    let what = match serves_as_before {
                        true => "exchanged, the one before serves on",
                        false => "loaded",
                    };
                    tracing::error!(model.name = name, "model {name} cannot be {what}: {reason}");
                    continue;
                }
            };
            tracing::info!(model.name = name, "model {name} {words}");
        }
    }
}
