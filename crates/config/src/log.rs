//! `[log]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Period;

/// The configuration of the log: its level and its format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least important lines that are shown: `"error"`, `"warn"`, `"info"`, `"debug"` or `"trace"`.
    pub level: LogLevel,
    /// `"text"` for people, `"json"` for machines: one object a line. Either goes to standard error.
    pub format: LogFormat,
    /// A request that took longer gets a warning with the time of each of its steps. Without it: there is no such
    /// warning.
    pub slow: Option<Period>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            slow: None,
        }
    }
}

/// The importance of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
