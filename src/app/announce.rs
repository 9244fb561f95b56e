//! The log of a start: the address, what is open, what is ready, and how to try it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use embedgate_core::Head;

use super::{App, Listeners};
use crate::{
    embed::Embedder,
    http::{Gateway, listener::Listener},
    model::{Model, ModelState, RegistryEntry, devices},
    model_host::ModelHost,
};

impl App {
    /// Logs the address of the gateway, who can reach it, and warnings about its configuration.
    pub(super) fn announce(&self, listeners: &Listeners, gateway: &Gateway) -> anyhow::Result<()> {
        let listener = &listeners.listener;
        let address = listener.address().context("the listener has no address")?;
        if let Some(path) = listeners.local.as_ref().and_then(Listener::path) {
            tracing::info!("and at {}", path.display());
        }
        let version = env!("CARGO_PKG_VERSION");
        let scheme = scheme(self.tls.is_some());
        tracing::info!(%address, version, "embedgate {version} listens on {scheme}://{address}/v1");
        if address.ip().is_loopback() {
            tracing::info!(
                "containers and other machines cannot reach {address}: for those set server.listen = \"0.0.0.0:{}\"",
                address.port()
            );
        } else {
            tracing::info!(
                "from Docker on this machine: {scheme}://host.docker.internal:{}/v1",
                address.port()
            );
            if gateway.authenticator.is_open() {
                tracing::warn!(
                    "anybody who reaches {address} may use this server: auth.mode is \"none\""
                );
            }
        }
        self.config.log_warnings();
        for name in self
            .config
            .models
            .iter()
            .flat_map(|(name, model)| model.aliases.iter().chain([name]))
        {
            if name.contains("___") || name.contains('@') {
                tracing::warn!(
                    model.name = name,
                    "RAGFlow cuts model names at ___ and @: it cannot use \"{name}\""
                );
            }
        }
        Ok(())
    }

    /// Says how a card is used that is there and idle.
    pub(super) async fn advise(&self) {
        let models: Vec<_> = self.config.models.values().cloned().collect();
        let context = self.load_context.clone();
        // The driver takes its time to start.
        let looking = tokio::task::spawn_blocking(move || devices::advice(&models, &context));
        if let Ok(Some(advice)) = looking.await {
            tracing::info!("{advice}");
        }
    }
}

/// The scheme of addresses.
fn scheme(has_tls: bool) -> &'static str {
    match has_tls {
        true => "https",
        false => "http",
    }
}

/// Says that the models are loaded, of so many.
pub(super) fn say_ready(models: &ModelHost, n_models: usize) {
    let is_fetching = |entry: &&RegistryEntry| matches!(entry.state, ModelState::Fetching(_));
    let n = models.embedder().map_or(0, |embedder| {
        let entries = embedder.registry().entries().iter();
        entries.filter(is_fetching).count()
    });
    match n {
        0 => tracing::info!("ready"),
        n => tracing::info!("ready, but for {n} of {n_models} models, which are being fetched"),
    }
}

/// A command that asks the server for a vector of its default model, or of the first one.
pub(super) fn example(
    embedder: &Embedder,
    address: SocketAddr,
    gateway: &Gateway,
) -> Option<String> {
    let registry = embedder.registry();
    let gives_vectors = |model: &&Arc<Model>| model.info.outputs.has(Head::Dense);
    let default = registry.resolve(None).ok();
    let model = default.filter(gives_vectors);
    let model = model.or_else(|| registry.loaded().find(gives_vectors))?;
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let key = match gateway.authenticator.is_open() {
        true => "",
        false => " -H \"Authorization: Bearer $KEY\"",
    };
    let scheme = scheme(gateway.config.tls.is_some());
    let body = serde_json::json!({"model": model.name, "input": "hello"});
    Some(format!(
        "curl {scheme}://{host}:{}/v1/embeddings -H \"Content-Type: application/json\"{key} -d '{body}'",
        address.port()
    ))
}
