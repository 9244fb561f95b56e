//! Traces of requests, at a collector that reads OTLP.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use embedgate_test_support::{Gateway, client, guest, tiny_bge_m3};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A collector on a port of its own, which keeps what it gets.
#[derive(Clone)]
struct Collector {
    address: String,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    /// The header `authorization` of each export.
    keys: Arc<Mutex<Vec<String>>>,
    n_spans: watch::Sender<usize>,
}

impl Collector {
    async fn listening() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            got: Arc::default(),
            keys: Arc::default(),
            n_spans: watch::Sender::new(0),
        };
        (collector, listener)
    }

    async fn http() -> Self {
        let (collector, listener) = Self::listening().await;
        let own = collector.clone();
        let take = move |headers: HeaderMap, body: Bytes| async move {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            let key = headers.get("authorization");
            let key = key.map_or("", |key| key.to_str().unwrap());
            own.take(ExportTraceServiceRequest::decode(body).unwrap(), key);
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        collector
    }

    async fn grpc() -> Self {
        let (collector, listener) = Self::listening().await;
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        collector
    }

    fn take(&self, export: ExportTraceServiceRequest, key: &str) {
        let scopes = export.resource_spans.iter().flat_map(|r| &r.scope_spans);
        let n: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.got.lock().unwrap().push(export);
        self.keys.lock().unwrap().push(key.to_owned());
        self.n_spans.send_modify(|all| *all += n);
    }

    async fn wait_for(&self, n: usize) {
        let mut n_spans = self.n_spans.subscribe();
        n_spans.wait_for(|got| *got >= n).await.unwrap();
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let resources = got.iter().flat_map(|export| &export.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn resource(&self) -> BTreeMap<String, String> {
        let got = self.got.lock().unwrap();
        let resource = got[0].resource_spans[0].resource.clone().unwrap();
        resource
            .attributes
            .into_iter()
            .map(|pair| (pair.key, text(pair.value.unwrap().value.unwrap())))
            .collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let key = request.metadata().get("authorization").cloned();
        let key = key.map_or(String::new(), |key| key.to_str().unwrap().to_owned());
        self.take(request.into_inner(), &key);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(value: Value) -> String {
    match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let pair = |pair: &'_ opentelemetry_proto::tonic::common::v1::KeyValue| {
        text(pair.value.clone().unwrap().value.unwrap())
    };
    span.attributes
        .iter()
        .map(|all| (&*all.key, pair(all)))
        .collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn config(telemetry: &str, more: &str) -> String {
    let path = tiny_bge_m3();
    format!(
        "[log]\nformat = \"json\"\n[telemetry]\n{telemetry}\n{more}\n[models.m]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n"
    )
}

/// A request of two texts in the trace of its caller, and its answer's headers.
async fn ask(gateway: &Gateway, key: Option<&str>) -> reqwest::Response {
    let request = client().post(format!("{}/v1/embeddings", gateway.url));
    let mut request = request.header("traceparent", CALLER);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let body = json!({ "model": "m", "input": ["one", "another text"] });
    request.json(&body).send().await.unwrap()
}

// The collector answers while the gateway is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_trace_of_its_steps_in_the_trace_of_its_caller() {
    let collector = Collector::http().await;
    let telemetry = format!(
        "endpoint = {:?}\nheaders = {{ authorization = \"Bearer for-the-collector\" }}\n\
         attributes = {{ \"deployment.environment.name\" = \"test\" }}",
        collector.address
    );
    let plugin = guest("hostile");
    let more = format!(
        "[auth]\nkeys = [{{ key = \"a-long-key\", name = \"ragflow\" }}]\n[plugins.p]\npath = {plugin:?}\nhooks = [\"preprocess\"]"
    );
    let gateway = Gateway::start(&config(&telemetry, &more));
    let response = ask(&gateway, Some("a-long-key")).await;
    assert_eq!(response.status(), 200);
    let own = response.headers()["traceresponse"].to_str().unwrap();
    let own_span = own.split('-').nth(2).unwrap().to_owned();
    assert!(own.starts_with(&format!("00-{CALLERS_TRACE}-")), "{own}");
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    // Whoever asks how things are is not traced.
    gateway.get("/livez").await;
    gateway.metrics().await;
    let log = gateway.stop();
    collector.wait_for(9).await;

    let spans = collector.spans();
    let (in_trace, apart): (Vec<&Span>, Vec<&Span>) = spans
        .iter()
        .partition(|span| hex(&span.trace_id) == CALLERS_TRACE);
    let names: BTreeSet<&str> = in_trace.iter().map(|span| &*span.name).collect();
    let expected = [
        "POST /v1/embeddings",
        "auth",
        "body",
        "cache",
        "inference",
        "parse",
        "plugin p preprocess",
        "queue",
        "render",
        "tokenize",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let root = in_trace
        .iter()
        .find(|span| span.kind == SpanKind::Server as i32)
        .unwrap();
    assert_eq!(hex(&root.span_id), own_span);
    assert_eq!(hex(&root.parent_span_id), "b7ad6b7169203331");
    let said = attributes(root);
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/embeddings"),
        ("http.response.status_code", "200"),
        ("gen_ai.request.model", "m"),
        ("embedgate.inputs", "2"),
        ("embedgate.inputs.cached", "0"),
        ("enduser.id", "ragflow"),
        ("embedgate.request.id", &id),
    ] {
        assert_eq!(said[name], value, "{name}");
    }
    for span in &in_trace {
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano);
        if span.span_id != root.span_id {
            assert_eq!(span.parent_span_id, root.span_id, "{}", span.name);
        }
    }
    // Each batch has a trace of its own, to which all that were in it link.
    let batches: BTreeSet<_> = apart.iter().map(|batch| batch.span_id.clone()).collect();
    let links = in_trace.iter().flat_map(|span| &span.links);
    let linked: BTreeSet<_> = links.map(|link| link.span_id.clone()).collect();
    assert!(apart.iter().all(|span| span.name == "batch"));
    assert!(!batches.is_empty());
    assert_eq!(linked, batches);
    let sequences = apart.iter().map(|batch| attributes(batch));
    let n: usize = sequences
        .map(|said| said["embedgate.sequences"].parse::<usize>().unwrap())
        .sum();
    assert_eq!(n, 2);
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "embedgate");
    assert_eq!(resource["deployment.environment.name"], "test");
    let keys = collector.keys.lock().unwrap().clone();
    assert!(
        keys.iter().all(|key| key == "Bearer for-the-collector"),
        "{keys:?}"
    );
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    let expected = format!("\"trace_id\":\"{CALLERS_TRACE}\"");
    assert!(line.contains(&expected), "{line}");
    assert!(!log.contains("for-the-collector"), "{log}");
}

#[tokio::test]
async fn a_collector_of_grpc_gets_the_same_by_the_variables_of_opentelemetry() {
    let collector = Collector::grpc().await;
    let more = "[auth]\nmode = \"none\"";
    let mut gateway = Gateway::start_loading(
        &config("", more),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.address),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20one"),
            ("OTEL_SERVICE_NAME", "rag"),
        ],
    );
    gateway.wait_until_ready();
    assert_eq!(ask(&gateway, None).await.status(), 200);
    let refused = json!({ "model": "m", "input": [] });
    assert_eq!(gateway.ask("/v1/embeddings", &refused).await.status, 400);
    collector.wait_for(10).await;
    let spans = collector.spans();
    let servers = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server as i32);
    let said: BTreeMap<String, BTreeMap<&str, String>> = servers
        .map(|span| {
            let code = span.status.as_ref().map(|status| status.code);
            assert_ne!(code, Some(StatusCode::Error as i32));
            let said = attributes(span);
            (said["http.response.status_code"].clone(), said)
        })
        .collect();
    assert!(said["400"].contains_key("error.type"), "{said:?}");
    assert!(!said["200"].contains_key("error.type"), "{said:?}");
    assert_eq!(collector.resource()["service.name"], "rag");
    assert_eq!(collector.keys.lock().unwrap()[0], "Bearer one");
}

#[tokio::test]
async fn a_time_in_the_metrics_leads_to_a_trace() {
    let collector = Collector::http().await;
    let telemetry = format!("endpoint = {:?}", collector.address);
    let gateway = Gateway::start(&config(&telemetry, "[auth]\nmode = \"none\""));
    assert_eq!(ask(&gateway, None).await.status(), 200);
    let metrics = async |accept: &str| {
        let request = client().get(format!("{}/metrics", gateway.url));
        let answer = request.header("accept", accept).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let exemplar = format!(" # {{trace_id=\"{CALLERS_TRACE}\"}} ");
    let text = metrics("application/openmetrics-text").await;
    let line = text.lines().find(|line| line.contains(&exemplar)).unwrap();
    assert!(
        line.starts_with("embedgate_request_duration_seconds_bucket"),
        "{line}"
    );
    assert!(line.contains("route=\"/v1/embeddings\""), "{line}");
    // The older format has none.
    assert!(!metrics("text/plain").await.contains("trace_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_span_of_many_requests_is_lost() {
    let collector = Collector::http().await;
    let telemetry = format!("endpoint = {:?}", collector.address);
    let gateway = Gateway::start(&config(&telemetry, "[auth]\nmode = \"none\""));
    let (n, at_once) = (2000, 16);
    let client = client();
    let ask = async |i: usize| {
        for j in (i..n).step_by(at_once) {
            let body = json!({ "model": "m", "input": format!("text {}", j % 50) });
            let request = client.post(format!("{}/v1/embeddings", gateway.url));
            assert_eq!(request.json(&body).send().await.unwrap().status(), 200);
        }
    };
    futures_util::future::join_all((0..at_once).map(ask)).await;
    // The rest is sent at the end.
    let log = gateway.stop();
    assert!(!log.contains("are lost"), "{log}");
    let spans = collector.spans();
    let servers = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server as i32);
    let traces: BTreeSet<&[u8]> = servers.map(|span| &*span.trace_id).collect();
    assert_eq!(traces.len(), n);
    // Every trace is whole: auth, body, parse, cache and render, at least.
    for name in ["auth", "body", "parse", "cache", "render"] {
        let of_name = spans.iter().filter(|span| span.name == name);
        assert_eq!(of_name.count(), n, "{name}");
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_no_request() {
    let (collector, listener) = Collector::listening().await;
    drop(listener);
    let telemetry = format!(
        "endpoint = {:?}\nmax_queue = 20\ntimeout = \"100ms\"",
        collector.address
    );
    let gateway = Gateway::start(&config(&telemetry, "[auth]\nmode = \"none\""));
    for _ in 0..10 {
        assert_eq!(ask(&gateway, None).await.status(), 200);
    }
    gateway.wait_for_log("does not take spans");
    let metrics = gateway.metrics().await;
    let lost = |result: &str| {
        let name = format!("embedgate_trace_spans_total{{result=\"{result}\"}}");
        metrics.get(&name).copied().unwrap_or(0.0)
    };
    assert!(lost("failed") + lost("dropped") > 0.0, "{metrics:?}");
    assert_eq!(lost("exported"), 0.0);
    drop(gateway.stop());
}

#[tokio::test]
async fn a_wrong_address_is_refused_at_the_start() {
    let config = config("endpoint = \"localhost:4318\"", "[auth]\nmode = \"none\"");
    let file = embedgate_test_support::config_file(&config);
    let mut command = embedgate_test_support::embedgate();
    let (code, _, said) =
        embedgate_test_support::run(command.arg("serve").arg("--config").arg(file.path()));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("telemetry.endpoint"), "{said}");
}
