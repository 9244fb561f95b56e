//! Is the process alive, is it ready, what is it.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use embedgate_request::Error;
use serde_json::{Value, json};

use super::{
    GatewayState,
    error::{Failed, probe},
};
use crate::{
    model::{ModelRegistry, ModelState, RegistryEntry},
    shutdown::Stage,
};

/// The time after which a model that is down may serve again: its backend is loaded anew.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// `GET /livez`: 200 as long as the process answers.
pub(super) async fn livez() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// `GET /readyz`: 200 when requests are served, with the state of each model; else 503, as soon as the shutdown begins, too.
pub(super) async fn readyz(gateway: GatewayState) -> Response {
    if gateway.shutdown.stage() > Stage::Running {
        return probe(false, json!({"status": "draining"}));
    }
    let embedder = match gateway.embedder() {
        Ok(embedder) => embedder,
        Err(error) => return Failed::from(error).into_response(),
    };
    let serving = serves(embedder.registry());
    let word = if serving { "ready" } else { "down" };
    let mut answer = json!({"status": word});
    if gateway.config.public_names {
        answer["models"] = states(embedder.registry()).into();
    }
    probe(serving, answer)
}

/// `GET /health`, as text-embeddings-inference has it: 200 without a body when requests are served; else 503.
pub(super) async fn health(gateway: GatewayState) -> Result<(), Failed> {
    match serves(gateway.embedder()?.registry()) {
        true => Ok(()),
        false => Err(Error::unavailable("no model serves", RETRY_AFTER).into()),
    }
}

/// `GET /v1/cluster/auth`, as Xinference has it: its client sends a key only where it is told that one is asked for.
///
/// Source: xinference-client 1.10, `RESTfulClient._check_cluster_authenticated`.
pub(super) async fn cluster_auth(gateway: GatewayState) -> Json<Value> {
    Json(json!({"auth": !gateway.authenticator.is_open()}))
}

fn serves(registry: &ModelRegistry) -> bool {
    registry.entries().iter().any(RegistryEntry::serves)
}

/// `GET /`: what this is, for people who paste the base URL into a browser.
pub(super) async fn root(gateway: GatewayState) -> Json<Value> {
    let mut answer = json!({
        "name": "embedgate",
        "version": env!("CARGO_PKG_VERSION"),
        "links": {"embeddings": "/v1/embeddings", "models": "/v1/models", "docs": "/docs", "live": "/livez", "ready": "/readyz"},
    });
    if gateway.config.public_names {
        let embedder = gateway.embedder();
        let models = embedder.map(|embedder| states(embedder.registry()));
        answer["models"] = models.unwrap_or_default().into();
    }
    Json(answer)
}

fn states(registry: &ModelRegistry) -> Vec<Value> {
    let state = |entry: &RegistryEntry| {
        let mut state = json!({"id": entry.name, "status": status(entry)});
        match &entry.state {
            ModelState::Loaded(model) if entry.serves() => {
                state["device"] = json!(model.info.device);
                state["precision"] = json!(model.info.precision);
                if !model.skipped.is_empty() {
                    // Why is in the model list, which asks for a key.
                    let skipped = model.skipped.iter().map(|skipped| skipped.device.as_str());
                    state["skipped_devices"] = skipped.collect();
                }
            }
            ModelState::Fetching(fetched) => {
                let (done, total) = fetched.get();
                state["fetched_bytes"] = json!(done);
                state["total_bytes"] = json!(total);
            }
            _ => {}
        }
        state
    };
    registry.entries().iter().map(state).collect()
}

/// Returns the state of a model in one word. The reason of a failure goes only to the log and to callers who name the
/// model, because this route needs no key.
pub(super) fn status(entry: &RegistryEntry) -> &'static str {
    match &entry.state {
        ModelState::Loaded(_) if entry.serves() => "ready",
        ModelState::Loaded(_) => "down",
        ModelState::Failed(_) => "failed",
        ModelState::OnDemand => "on_demand",
        ModelState::Fetching(_) => "fetching",
        ModelState::Loading => "loading",
    }
}
