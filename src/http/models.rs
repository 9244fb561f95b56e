//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
};
use embedgate_request::Error;
use serde_json::{Value, json};

use super::{Gateway, State, context::Context, error::Failed};
use crate::model::Model;

/// Every model that serves.
pub(super) async fn list(gateway: State, Context(ctx): Context) -> Result<Json<Value>, Failed> {
    let embedder = gateway.embedder()?;
    let data: Vec<Value> = embedder
        .registry()
        .loaded()
        .filter(|model| ctx.principal.may_use(model.names()))
        .map(|model| describe(&gateway, model))
        .collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

/// One model by name or alias; names may hold slashes.
pub(super) async fn one(
    gateway: State,
    Context(ctx): Context,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Failed> {
    let Path(id) = id.map_err(|_| Error::invalid("id", "the model's id is not valid UTF-8"))?;
    let model = gateway.embedder()?.shown_model(&ctx.principal, &id)?;
    Ok(Json(describe(&gateway, model)))
}

fn describe(gateway: &Gateway, model: &Model) -> Value {
    let mut described = json!({
        "id": model.name,
        "object": "model",
        "created": gateway.started,
        "owned_by": "embedgate",
        "model_type": if model.info.outputs.score { "rerank" } else { "embedding" },
        "max_model_len": model.info.max_sequence_tokens,
        "dimensions": model.info.dimensions,
        "aliases": model.config.aliases,
        "backend": model.info.backend,
        "device": model.info.device,
        "precision": model.info.precision,
    });
    if !model.skipped.is_empty() {
        described["skipped_devices"] = json!(model.skipped);
    }
    described
}
