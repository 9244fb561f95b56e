//! The route table and the order of the layers. Nowhere else is `.route(` said.
//!
//! Each file in `http/` is one dialect or one concern; none knows of backends, batches or caches.

pub mod bare;
pub mod body;
mod cohere;
pub mod connection;
mod context;
mod dialect;
mod error;
mod exchange;
mod health;
mod json;
mod linger;
mod metrics;
mod models;
mod ollama;
mod openai;
mod rerank;
mod stream;
mod tei;
mod trace;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, Uri},
    middleware::Next,
    response::Response,
    routing::{get, post},
};
use futures_util::FutureExt;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use self::dialect::Dialect;
use crate::{
    auth::Authenticator, config::ServerConfig, embed::Embedder, error::Error, metrics::Metrics,
    plugin::Plugins, request::Route, shutdown::Shutdown,
};

/// What handlers share.
pub struct Gateway {
    /// `[server]`.
    pub config: ServerConfig,
    /// Asked before anything of a request is read.
    pub authenticator: Authenticator,
    /// Asked about callers and requests, and told of answers.
    pub plugins: Arc<Plugins>,
    /// What the bodies of all requests together may take.
    pub body_memory: body::BodyMemory,
    /// Set when the models are loaded.
    pub embedder: OnceLock<Embedder>,
    /// What is counted.
    pub metrics: Metrics,
    /// Tells whether the process is on its way out.
    pub shutdown: Shutdown,
    /// When the process started, in seconds since 1970.
    pub started: u64,
}

impl Gateway {
    /// The service, once the models are loaded.
    ///
    /// # Errors
    /// Unavailable before that, and while draining.
    pub fn embedder(&self) -> Result<&Embedder, Error> {
        use crate::shutdown::Stage;
        let second = std::time::Duration::from_secs(1);
        if self.shutdown.stage() != Stage::Running {
            return Err(
                Error::unavailable("embedgate is shutting down", second).with_code("shutting_down")
            );
        }
        self.embedder.get().ok_or_else(|| {
            Error::unavailable(
                "embedgate is loading its models, try again in a few seconds",
                second * 5,
            )
            .with_code("loading")
        })
    }
}

type State = axum::extract::State<Arc<Gateway>>;

/// All routes.
pub fn router(gateway: Arc<Gateway>) -> Router {
    let cors = cors(&gateway.config.cors_origins);
    let routes = Router::new()
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/embeddings", post(openai::embeddings))
        .route("/v1/v1/embeddings", post(openai::embeddings))
        .route("/v1-openai/embeddings", post(openai::embeddings))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/models", get(models::list))
        .route("/embed", post(tei::embed))
        .route("/embed_sparse", post(tei::embed_sparse))
        .route("/similarity", post(tei::similarity))
        .route("/tokenize", post(tei::tokenize))
        .route("/decode", post(tei::decode))
        .route("/info", get(tei::info))
        .route("/api/embed", post(ollama::embed))
        .route("/api/embeddings", post(ollama::embeddings))
        .route("/api/tags", get(ollama::tags))
        .route("/api/show", post(ollama::show))
        .route("/api/version", get(ollama::version))
        .route("/v2/embed", post(cohere::embed))
        .route("/v1/rerank", post(rerank::jina))
        .route("/v1/v1/rerank", post(rerank::jina))
        .route("/v2/rerank", post(rerank::cohere))
        .route("/rerank", post(rerank::either))
        .route("/", get(health::root).post(tei::embed))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/health", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .with_state(Arc::clone(&gateway));
    let routes = routes.layer(axum::middleware::from_fn_with_state(gateway, around));
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// The name by which the configuration knows a route.
fn route(path: &str) -> Option<Route> {
    match path {
        "/embed" | "/embed_sparse" | "/similarity" | "/tokenize" | "/decode" | "/info" | "/" => {
            Some(Route::Tei)
        }
        path if path.ends_with("/rerank") => Some(Route::Rerank),
        "/v2/embed" => Some(Route::Cohere),
        path if path.starts_with("/api/") => Some(Route::Ollama),
        path if path.ends_with("/embeddings") => Some(Route::Embeddings),
        path if path.ends_with("/models") || path.ends_with("/models/{*id}") => Some(Route::Models),
        _ => None,
    }
}

/// What is around every route, from the inside out: a panic becomes an answer; a refused body is taken to its end; the log,
/// the metrics and the request's id see every answer. One layer, since each costs a request several allocations.
async fn around(gateway: State, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let dialect = route.map_or(Dialect::OpenAi, |route| {
        Dialect::of(request.method(), route.as_str())
    });
    let caught = async |request| {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let answer = answer.unwrap_or_else(error::panicked);
        error::in_dialect(answer, dialect)
    };
    let lingering = async |request| linger::linger(request, caught).await;
    trace::trace(&gateway, request, lingering).await
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
