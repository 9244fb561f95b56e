//! Sends spans to the collector, on a thread of its own.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use embedgate_config::{OtlpProtocol, TelemetryConfig};
use embedgate_metrics::Metrics;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::{metadata::MetadataMap, transport::ClientTlsConfig},
};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};

use crate::queue::Queue;

/// Starts the thread that sends what comes into the queue.
///
/// # Errors
/// When the address cannot be used, or the system gives no thread.
pub(crate) fn start(
    config: &TelemetryConfig,
    target: &str,
    queue: Arc<Queue>,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut exporter = {
        // The client of gRPC belongs to the runtime in which it is made.
        let _runtime = runtime.enter();
        exporter(config, target)?
    };
    exporter.set_resource(&resource(config));
    let target = target.to_owned();
    let thread = std::thread::Builder::new().name("traces".into());
    thread.spawn(move || {
        runtime.block_on(send(&queue, &exporter, &metrics, &target));
        queue.end();
    })?;
    Ok(())
}

async fn send(queue: &Queue, exporter: &SpanExporter, metrics: &Metrics, target: &str) {
    let mut is_refused = false;
    while let Some(spans) = queue.next().await {
        let n = spans.len();
        let sent = exporter.export(spans).await;
        metrics.spans(if sent.is_ok() { "exported" } else { "failed" }, n);
        // Said when it begins and when it ends: there may be many a second.
        match &sent {
            Ok(()) if is_refused => tracing::info!("the collector of traces takes spans again"),
            Err(error) if !is_refused => tracing::warn!(
                "the collector of traces at {target} does not take spans, which are dropped and counted: {error}"
            ),
            _ => {}
        }
        is_refused = sent.is_err();
    }
}

fn exporter(config: &TelemetryConfig, target: &str) -> anyhow::Result<SpanExporter> {
    let headers = config.headers.iter();
    match config.protocol {
        OtlpProtocol::Http => {
            use_ring();
            let client = reqwest::Client::builder()
                .user_agent(concat!("embedgate/", env!("CARGO_PKG_VERSION")))
                .timeout(config.timeout.0)
                .build()?;
            let headers: HashMap<String, String> = headers
                .map(|(name, value)| (name.clone(), value.expose().to_owned()))
                .collect();
            let exporter = SpanExporter::builder()
                .with_http()
                .with_endpoint(target)
                .with_timeout(config.timeout.0)
                .with_headers(headers)
                .with_http_client(client);
            Ok(exporter.build()?)
        }
        OtlpProtocol::Grpc => {
            use_ring();
            let mut metadata = HeaderMap::new();
            for (name, value) in headers {
                let name: HeaderName = name.parse().with_context(|| format!("the name {name}"))?;
                let value: HeaderValue = value.expose().parse().context("the value of a header")?;
                metadata.insert(name, value);
            }
            let mut exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(target)
                .with_timeout(config.timeout.0)
                .with_metadata(MetadataMap::from_headers(metadata));
            if target.starts_with("https:") {
                exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
            }
            Ok(exporter.build()?)
        }
    }
}

/// The one provider of cryptography in this process.
fn use_ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may be first: it installs the same.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

/// The facts of this service that every span has.
fn resource(config: &TelemetryConfig) -> Resource {
    let own = config.attributes.iter();
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_attributes(own.map(|(name, value)| KeyValue::new(name.clone(), value.clone())))
        .with_service_name(config.service_name.clone())
        .build()
}
