//! The state that handlers share, and the order of the layers around the route table.
//!
//! Each file in `http/` is one dialect or one concern; none knows of backends, batches or caches.

mod admin;
mod admitted_request;
mod answer;
mod body;
mod cohere;
pub(crate) mod connection;
mod connection_slots;
mod context;
mod dense;
mod dialect;
mod discard_body;
mod embedding;
mod error;
mod foreign;
mod health;
mod idle;
mod input;
mod json;
pub(crate) mod listener;
mod member;
mod metrics;
mod models;
mod object;
mod ollama;
mod openai;
mod openapi;
mod page;
mod pooling;
mod proxies;
mod rerank;
mod routes;
mod serving;
mod stream;
mod tei;
pub(crate) mod tls;
mod trace;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use embedgate_config::ServerConfig;
use embedgate_metrics::Metrics;
use embedgate_plugin_host::Plugins;
use embedgate_request::{Error, ErrorKind, Memory, RequestContext};
use embedgate_traces::Traces;
use futures_util::FutureExt;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use self::{connection::BadHost, dialect::Dialect, error::Failed, routes::RouteInfo};
use crate::{
    auth::Authenticator,
    embed::{Embedder, Target},
    model_host::ModelHost,
    reload::ask::Reloads,
    shutdown::Shutdown,
    usage::Usage,
};

/// The state that handlers share.
pub(crate) struct Gateway {
    /// `[server]`.
    pub config: ServerConfig,
    /// Asked before anything of a request is read.
    pub authenticator: Authenticator,
    /// Asked about callers and requests, and told of answers.
    pub plugins: Arc<Plugins>,
    /// The memory that all requests may take together, their answers included.
    pub memory: Arc<Memory>,
    /// Has the models.
    pub models: Arc<ModelHost>,
    /// Reads the configuration again.
    pub reloads: Reloads,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Tells whether the process is on its way out.
    pub shutdown: Shutdown,
    /// The time when the process started, in seconds since 1970.
    pub started: u64,
    /// Where traces of requests go.
    pub traces: Arc<Traces>,
    /// Counts what each caller uses.
    pub usage: Usage,
    /// Requests that take longer are said to be slow.
    pub slow: Option<Duration>,
}

impl Gateway {
    /// The service, once the models are loaded: for a request that comes while the gateway drains, too. Whoever has a connection
    /// then was let in, and is answered.
    ///
    /// # Errors
    /// Unavailable before the models are loaded.
    pub(crate) fn embedder(&self) -> Result<Arc<Embedder>, Error> {
        self.models.embedder().ok_or_else(|| {
            Error::unavailable(
                "embedgate is loading its models, try again in a few seconds",
                Duration::from_secs(5),
            )
            .with_code("loading")
        })
    }

    /// Loads the model of a request that is on demand; none where it is not.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be loaded; `DeadlineExceeded` where that takes longer than the request has.
    async fn wake(&self, ctx: &RequestContext, target: &Target) -> Result<Option<Target>, Error> {
        if !target.is_on_demand() {
            return Ok(None);
        }
        let name = &*target.entry().name;
        let late = |_| {
            let message = format!(
                "model \"{name}\" waits to be loaded, and the time of the request is over: try again"
            );
            Error::new(ErrorKind::DeadlineExceeded, message)
        };
        let waking = async {
            loop {
                self.models.wake(name).await?;
                let embedder = self.embedder()?;
                let registry = embedder.registry();
                // The caller may use it under the name that was asked for.
                let entry = registry.entry(name);
                let entry = entry.ok_or_else(|| registry.not_found(&ctx.principal, name))?;
                let target = target.clone().with_entry(entry);
                // It may have left for another one already.
                if !target.is_on_demand() {
                    return Ok(Some(target));
                }
            }
        };
        tokio::time::timeout_at(ctx.deadline.into(), waking)
            .await
            .map_err(late)?
    }
}

type GatewayState = axum::extract::State<Arc<Gateway>>;

/// All routes.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    let cors = cors(&gateway.config.cors_origins);
    let routes = routes::router().with_state(Arc::clone(&gateway));
    let routes = routes.layer(axum::middleware::from_fn_with_state(gateway, around));
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// The routes of the administrators' own address.
pub(crate) fn admin_router(gateway: Arc<Gateway>) -> Router {
    let render = async |answer| error::render(answer, Dialect::OpenAi);
    let render = axum::middleware::map_response(render);
    routes::admin_router().with_state(gateway).layer(render)
}

/// Wraps every route in the common layers. From the inside out: a panic becomes an answer; a refused body is read to
/// its end; the log, the metrics and the request's id see every answer. All this is one layer, because each layer costs
/// a request several allocations.
async fn around(gateway: GatewayState, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let info = route.and_then(|route| RouteInfo::of(route.as_str()));
    let dialect = info.map_or(Dialect::OpenAi, |info| info.dialect);
    let caught = async |request: Request| {
        if let Some(BadHost { n_hosts }) = request.extensions().get() {
            let message = format!("the request has {n_hosts} Host headers, expected one");
            let refused = Error::new(ErrorKind::InvalidRequest, message);
            return error::render(Failed::from(refused).into_response(), dialect);
        }
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let answer = answer.unwrap_or_else(error::panicked);
        error::render(answer, dialect)
    };
    let discarding = async |request| discard_body::discard_rest(request, caught).await;
    trace::trace(&gateway, request, discarding).await
}

/// Clients glue base URLs and paths together in every way: `//` counts as `/`, and one at the end as none.
pub(crate) fn tidy_path<B>(mut request: Request<B>) -> Request<B> {
    let path = request.uri().path();
    if !(path.contains("//") || (path.len() > 1 && path.ends_with('/'))) {
        return request;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    if let Ok(uri) = format!("/{}{query}", parts.join("/")).parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request());
    let layer = layer.expose_headers(
        [
            "x-request-id",
            "x-truncated",
            "x-compute-tokens",
            "retry-after",
            "retry-after-ms",
        ]
        .map(HeaderName::from_static),
    );
    Some(layer.allow_origin(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_and_queries_kept() {
        let cases = [
            ("/v1/embeddings", "/v1/embeddings"),
            ("/v1/embeddings/", "/v1/embeddings"),
            ("//v1///embeddings//?a=//", "/v1/embeddings?a=//"),
            ("/", "/"),
            ("//", "/"),
        ];
        for (given, expected) in cases {
            let request = Request::builder().uri(given).body(()).unwrap();
            assert_eq!(tidy_path(request).uri().to_string(), expected, "{given}");
        }
    }
}
