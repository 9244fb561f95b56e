//! The data that the gateway and its plugins exchange, with or without an engine.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use embedgate_config::PluginConfig;
use embedgate_metrics::Metrics;
use embedgate_request::Timings;

/// Added to the answer of a request whose preprocessor failed and was skipped.
pub const SKIPPED: &str = "x-embedgate-plugin-skipped";
/// The longest time that `lifecycle.init` may take.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of the gateway that plugins need.
#[derive(Clone)]
pub struct PluginContext {
    /// Folder for compiled plugins; none keeps none.
    pub state_folder: Option<PathBuf>,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// The counters.
    pub metrics: Metrics,
    /// The longest time that a plugin's `init` may take.
    pub init_timeout: Duration,
}

/// The part of a request that an authenticator gets.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The request's id.
    pub id: &'a Arc<str>,
    /// Such as `POST`.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// As it came, still encoded.
    pub query: Option<&'a str>,
    /// The header's values, by a name in lower case.
    pub headers: &'a dyn Headers,
    /// The other end of the connection.
    pub client_ip: Option<IpAddr>,
    /// The time at which the request's time is over.
    pub deadline: Instant,
    /// The record of the request's time.
    pub timings: &'a Timings,
}

/// The headers of a request, of which a plugin sees those that its configuration names.
pub trait Headers: Sync + std::fmt::Debug {
    /// Calls `found` with each value of a name, in order.
    fn each<'a>(&'a self, name: &str, found: &mut dyn FnMut(&'a [u8]));
}

/// One finished request.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The request's id.
    pub id: Arc<str>,
    /// Its path.
    pub path: Arc<str>,
    /// The answer's status.
    pub status: u16,
    /// The subject of the principal that sent the request.
    pub subject: Option<Arc<str>>,
    /// The organization that they belong to.
    pub tenant: Option<String>,
    /// The model that answered; empty where none did.
    pub model: String,
    /// Its inputs.
    pub n_inputs: usize,
    /// Their tokens.
    pub n_tokens: usize,
    /// Inputs that were cached.
    pub n_cached: usize,
    /// From its header to its answer, in microseconds.
    pub total_us: u64,
    /// The code of the error that was answered.
    pub error_code: Option<String>,
}

/// The result of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Plugins in a new version.
    pub loaded: Vec<String>,
    /// Plugins that are gone.
    pub removed: Vec<String>,
    /// Plugins whose new version cannot be loaded, and why; their old one, if any, still serves.
    pub failed: Vec<String>,
}

/// Returns a stamp that tells versions of a plugin's files apart without reading them.
pub(crate) fn stamp(config: &PluginConfig) -> Vec<Option<FileStamp>> {
    let one = |path: &Path| {
        let metadata = path.metadata().ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    config.files().map(one).collect()
}

/// The files of plugins, to see when one of them changes.
#[must_use]
pub fn stamps(configs: &BTreeMap<String, PluginConfig>) -> Stamps {
    Stamps(configs.values().map(stamp).collect())
}

/// Lengths and times of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Vec<Option<FileStamp>>>);

/// The length of a file, and when it was changed.
pub(crate) type FileStamp = (u64, SystemTime);
