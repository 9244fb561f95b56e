//! `GET /metrics`, for Prometheus.

use axum::{
    http::header,
    response::{IntoResponse, Response},
};

use super::State;

/// Every metric, in the text format of `OpenMetrics` 1.0. Needs no key, as the probes: it names the models, and no caller.
pub(super) async fn metrics(gateway: State) -> Response {
    if let Ok(embedder) = gateway.embedder() {
        let (entries, bytes) = embedder.cache().size().await;
        gateway.metrics.cache(entries, bytes);
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers = [(header::CONTENT_TYPE, content_type)];
    (headers, gateway.metrics.text()).into_response()
}
