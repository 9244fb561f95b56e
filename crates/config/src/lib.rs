//! The configuration: one TOML file, `${VAR}` in its strings, `EMBEDGATE_*` overrides, all problems at once.
//!
//! This is the only crate that reads the process's environment, in `environment.rs`. `load.rs` says how a file becomes a
//! [`Config`], and `check.rs` what it must fulfil. Each table has a file of its own. Files of the models are not opened here.

mod address;
mod auth;
mod backend;
mod cache;
mod check;
mod device;
mod environment;
mod expand;
mod hub;
mod libraries;
mod load;
mod log;
mod model;
mod parse;
mod plugin;
mod precision;
mod problem;
mod reload;
mod replicas;
mod schema;
mod secret;
mod server;
mod sha256;
mod source;
mod telemetry;
mod tls;
mod units;
mod usage;
mod warnings;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    address::resolve,
    auth::{
        AuthConfig, AuthMode,
        key::{KeyConfig, KeySecret, Timestamp},
    },
    backend::{BackendConfig, BackendType},
    cache::{CacheConfig, CacheFileConfig, CachePolicy, ValuePrecision},
    device::{Device, DeviceChoice},
    environment::Environment,
    hub::{HubAddress, HubConfig},
    libraries::{CudaConfig, OneDnnConfig, OnnxRuntimeConfig},
    log::{LogConfig, LogFormat, LogLevel},
    model::{DimensionsPolicy, LoadTime, ModelConfig, RerankWeights},
    plugin::{
        MOST_INSTANCES, NativeIds, OnError, PluginConfig,
        grants::{CryptoConfig, GrantsConfig, HttpConfig, IssuerConfig, KvConfig, allowed_url},
        instance::InstanceConfig,
    },
    precision::PrecisionChoice,
    problem::{ConfigError, Problem},
    replicas::ReplicaCount,
    secret::Secret,
    server::{FileMode, ServerConfig},
    source::{Hub, Source},
    telemetry::{OtlpProtocol, TelemetryConfig},
    tls::TlsConfig,
    units::{ByteSize, Period},
    usage::UsageConfig,
};

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Config {
    /// The model that answers requests without a model name, or with `"default"`. Without it: the only model there is.
    pub default_model: Option<String>,
    /// The answer to a request for a model that is not there: `"refuse"` (404 with the names), or `"default"` (that of
    /// the default model, as servers of one model do).
    pub unknown_model: UnknownModel,
    /// The HTTP server.
    pub server: ServerConfig,
    /// The level and the format of the log.
    pub log: LogConfig,
    /// Traces of requests.
    pub telemetry: TelemetryConfig,
    /// The record of what each caller uses.
    pub usage: UsageConfig,
    /// The configuration of authentication: the callers that may use the server.
    pub auth: AuthConfig,
    /// The cache of vectors.
    pub cache: CacheConfig,
    /// ONNX Runtime's library.
    pub onnxruntime: OnnxRuntimeConfig,
    /// oneDNN's library.
    pub onednn: OneDnnConfig,
    /// NVIDIA's driver.
    pub cuda: CudaConfig,
    /// The configuration of the hubs that models are fetched from.
    pub hub: HubConfig,
    /// One table a model; its name is what clients say. Only `path` is needed.
    pub models: BTreeMap<String, ModelConfig>,
    /// One table a plugin, a WebAssembly component. Only `path` is needed.
    pub plugins: BTreeMap<String, PluginConfig>,
}

/// The answer to a request for a model that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownModel {
    /// An error that lists the models.
    #[default]
    Refuse,
    /// The default model, as servers of one model do: for clients that send a name of their own.
    Default,
}

impl Config {
    /// The model's name and config that answer requests without a model name.
    #[must_use]
    pub fn default_model(&self) -> Option<&str> {
        match (&self.default_model, self.models.len()) {
            (Some(name), _) => Some(name),
            (None, 1) => self.models.keys().next().map(String::as_str),
            _ => None,
        }
    }

    /// The resolved configuration as TOML, secrets masked.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        for plugin in shown.plugins.values_mut() {
            if let Some(written) = &plugin.written_settings {
                plugin.settings.clone_from(written);
            }
        }
        toml::to_string_pretty(&shown).unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
    }
}
