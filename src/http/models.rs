//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
};
use embedgate_core::Head;
use embedgate_request::Error;
use serde_json::{Value, json};

use super::{Gateway, GatewayState, context::Context, error::Failed, health::status};
use crate::model::RegistryEntry;

/// Every model that serves, or that is loaded when it is asked for.
pub(super) async fn list(
    gateway: GatewayState,
    Context(ctx): Context,
) -> Result<Json<Value>, Failed> {
    let embedder = gateway.embedder()?;
    let data: Vec<Value> = embedder
        .registry()
        .entries()
        .iter()
        .filter(|entry| ctx.principal.may_use(entry.names()))
        .filter_map(|entry| describe(&gateway, entry).ok())
        .collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// One model by name or alias; names may hold slashes.
pub(super) async fn one(
    gateway: GatewayState,
    Context(ctx): Context,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failed> {
    let Path(id) = id.map_err(|_| Error::invalid("id", "the model's id is not valid UTF-8"))?;
    let embedder = gateway.embedder()?;
    let entry = embedder.shown(&ctx.principal, &id)?;
    Ok(Json(describe(&gateway, entry)?))
}

/// Describes a model that serves, or that is loaded when a request names it.
fn describe(gateway: &Gateway, entry: &RegistryEntry) -> Result<Value, Error> {
    let outline = entry.outline()?;
    let mut described = json!({
        "id": entry.name,
        "object": "model",
        "created": gateway.started,
        "owned_by": "embedgate",
        "model_type": if outline.scores { "rerank" } else { "embedding" },
        "max_model_len": outline.max_sequence_tokens,
        "dimensions": outline.dimensions,
        "aliases": entry.aliases,
        "status": status(entry),
    });
    if let Some(model) = entry.loaded() {
        described["backend"] = json!(model.info.backend);
        described["device"] = json!(model.info.device);
        described["precision"] = json!(model.info.precision);
        let outputs = model.info.outputs.iter().filter_map(Head::names);
        described["outputs"] = outputs.map(|names| names.output).collect();
        if !model.skipped.is_empty() {
            described["skipped_devices"] = json!(model.skipped);
        }
    }
    Ok(described)
}
