//! `[usage]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Problem};

/// The record of what each caller uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UsageConfig {
    /// True where requests, inputs and tokens are counted by day, caller and model, in `server.state_dir`: `embedgate
    /// usage` writes them as CSV or JSON.
    pub enabled: bool,
    /// Older counts are removed.
    pub keep: Period,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            keep: Period::seconds(366 * 24 * 3600),
        }
    }
}

impl UsageConfig {
    /// Reports everything that is wrong with the table.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        self.keep.check("usage.keep", problems);
    }
}
