//! `GET /metrics`, for Prometheus.

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::{GatewayState, context::Context, error::Failed};

/// Every metric, in the text format of `OpenMetrics` 1.0, or in Prometheus' older one where only that is accepted. It names the
/// models and the callers: where the configuration does not want that known, it needs a key.
pub(super) async fn metrics(gateway: GatewayState, request: Request) -> Result<Response, Failed> {
    let (mut parts, _) = request.into_parts();
    if !gateway.config.public_names {
        Context::from_request_parts(&mut parts, &gateway).await?;
    }
    // What is still done while the gateway drains counts, too.
    if let Ok(embedder) = gateway.embedder() {
        let (entries, bytes) = embedder.cache().size().await;
        gateway.metrics.cache(entries, bytes);
        for model in embedder.registry().loaded() {
            model.batcher().show_load(&model.metrics);
        }
    }
    let open_metrics = gateway.metrics.text();
    let (content_type, text) = match wants_older(&parts.headers) {
        true => (
            "text/plain; version=0.0.4; charset=utf-8",
            embedgate_metrics::older_text(&open_metrics),
        ),
        false => (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            open_metrics,
        ),
    };
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

fn wants_older(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/plain") && !accept.contains("openmetrics"))
}
