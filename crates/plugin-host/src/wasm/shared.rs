//! The data that all instances of a plugin share: its name, its bounds, and what is granted to it.

use std::{collections::BTreeMap, sync::Arc};

use embedgate_config::Secret;
use embedgate_metrics::PluginMetrics;

use super::{clock::Clock, crypto::Issuers, kv::Store, outbound::Outbound};

/// The data that all instances of a plugin share.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) max_memory: usize,
    /// Bytes of a request's texts after a change.
    pub(super) max_texts: usize,
    pub(super) grants: Grants,
    pub(super) clock: Clock,
    /// The key-value store of a warm-up call.
    pub(super) scratch: Store,
    pub(super) metrics: PluginMetrics,
}

/// The parts of the host that the configuration lets a plugin use.
pub(super) struct Grants {
    pub(super) secrets: BTreeMap<String, Secret>,
    pub(super) kv: Option<Arc<Store>>,
    pub(super) metrics: Vec<String>,
    pub(super) crypto: Option<Issuers>,
    pub(super) http: Option<Outbound>,
}

/// The error of an import that was not granted.
pub(super) fn not_granted(plugin: &str, grant: &str) -> wasmtime::Error {
    wasmtime::format_err!("not granted: add plugins.{plugin}.grants.{grant} to the configuration")
}
