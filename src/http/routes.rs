//! The route table. Nowhere else is `.route(` said: who answers a path, in whose words it fails, by what name the
//! configuration knows it, and what the `OpenAPI` document says of it all stand in its line.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    routing::{MethodRouter, get, post},
};
use embedgate_request::Route;

use super::{
    Gateway, admin, cohere,
    dialect::Dialect,
    embedding, error, health, metrics, models, ollama, openai,
    openapi::{
        self, Operation, cohere as cohere_docs, models as models_docs, ollama as ollama_docs,
    },
    openapi::{openai as openai_docs, rerank as rerank_docs, tei as tei_docs},
    page, pooling, rerank, tei,
};

/// One line of the table: a method of a path.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    handler: MethodRouter<Arc<Gateway>>,
    pub(super) info: RouteInfo,
    /// Aliases, pages and other servers' leftovers are served without being documented.
    pub(super) operation: Option<Operation>,
}

/// The route and the dialect that a path belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteInfo {
    /// The name by which the configuration knows it; none where nobody needs a key.
    pub(super) route: Option<Route>,
    /// In whose words it fails.
    pub(super) dialect: Dialect,
}

impl RouteInfo {
    const OPEN: Self = Self::new(None, Dialect::OpenAi);
    const EMBEDDINGS: Self = Self::new(Some(Route::Embeddings), Dialect::OpenAi);
    const MODELS: Self = Self::new(Some(Route::Models), Dialect::OpenAi);
    const RERANK: Self = Self::new(Some(Route::Rerank), Dialect::Jina);
    /// vLLM and NVIDIA fail as `OpenAI` does.
    const SCORE: Self = Self::new(Some(Route::Rerank), Dialect::OpenAi);
    const COHERE_RERANK: Self = Self::new(Some(Route::Rerank), Dialect::Cohere);
    const TEI: Self = Self::new(Some(Route::Tei), Dialect::Tei);
    const OLLAMA: Self = Self::new(Some(Route::Ollama), Dialect::Ollama);
    const COHERE: Self = Self::new(Some(Route::Cohere), Dialect::Cohere);

    const fn new(route: Option<Route>, dialect: Dialect) -> Self {
        Self { route, dialect }
    }

    /// Returns the route and the dialect of a path as the table writes it.
    pub(super) fn of(path: &str) -> Option<Self> {
        static ROUTES: LazyLock<HashMap<&str, RouteInfo, foldhash::fast::FixedState>> =
            LazyLock::new(|| {
                let endpoints = endpoints().into_iter();
                endpoints
                    .map(|endpoint| (endpoint.path, endpoint.info))
                    .collect()
            });
        ROUTES.get(path).copied()
    }

    /// A line without documentation.
    fn at(self, path: &'static str, handler: MethodRouter<Arc<Gateway>>) -> Endpoint {
        Endpoint {
            path,
            handler,
            info: self,
            operation: None,
        }
    }
}

impl Endpoint {
    fn documented(self, operation: Operation) -> Self {
        Self {
            operation: Some(operation),
            ..self
        }
    }
}

/// The table.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        RouteInfo::EMBEDDINGS
            .at("/v1/embeddings", post(openai::embeddings))
            .documented(openai_docs::embeddings()),
        RouteInfo::EMBEDDINGS.at("/embeddings", post(openai::embeddings)),
        RouteInfo::EMBEDDINGS.at("/v1/v1/embeddings", post(openai::embeddings)),
        RouteInfo::EMBEDDINGS.at("/v1-openai/embeddings", post(openai::embeddings)),
        RouteInfo::EMBEDDINGS.at("/openai/v1/embeddings", post(openai::embeddings)),
        RouteInfo::EMBEDDINGS.at(
            "/openai/deployments/{model}/embeddings",
            post(openai::of_deployment),
        ),
        RouteInfo::EMBEDDINGS.at("/embedding", post(embedding::embed)),
        RouteInfo::EMBEDDINGS.at("/pooling", post(pooling::pool)),
        RouteInfo::MODELS.at("/support_status", get(embedding::support_status)),
        RouteInfo::MODELS
            .at("/v1/models", get(models::list))
            .documented(models_docs::list()),
        RouteInfo::MODELS
            .at("/v1/models/{*id}", get(models::one))
            .documented(models_docs::one()),
        RouteInfo::MODELS.at("/models", get(models::list)),
        RouteInfo::MODELS.at("/v1/v1/models", get(models::list)),
        RouteInfo::RERANK
            .at("/v1/rerank", post(rerank::jina))
            .documented(rerank_docs::jina()),
        RouteInfo::RERANK.at("/v1/v1/rerank", post(rerank::jina)),
        RouteInfo::COHERE_RERANK
            .at("/v2/rerank", post(rerank::cohere))
            .documented(rerank_docs::cohere()),
        RouteInfo::RERANK
            .at("/rerank", post(rerank::either))
            .documented(rerank_docs::either()),
        RouteInfo::SCORE
            .at("/score", post(rerank::score))
            .documented(rerank_docs::score()),
        RouteInfo::SCORE.at("/v1/score", post(rerank::score)),
        RouteInfo::SCORE
            .at("/v1/ranking", post(rerank::nim))
            .documented(rerank_docs::nim()),
        RouteInfo::TEI
            .at("/embed", post(tei::embed))
            .documented(tei_docs::embed()),
        RouteInfo::TEI
            .at("/embed_all", post(tei::embed_all))
            .documented(tei_docs::embed_all()),
        RouteInfo::TEI
            .at("/embed_sparse", post(tei::embed_sparse))
            .documented(tei_docs::embed_sparse()),
        RouteInfo::TEI
            .at("/similarity", post(tei::similarity))
            .documented(tei_docs::similarity()),
        RouteInfo::TEI
            .at("/tokenize", post(tei::tokenize))
            .documented(tei_docs::tokenize()),
        RouteInfo::TEI
            .at("/decode", post(tei::decode))
            .documented(tei_docs::decode()),
        RouteInfo::TEI
            .at("/info", get(tei::info))
            .documented(tei_docs::info()),
        RouteInfo::OPEN.at("/page/{file}", get(page::part)),
        RouteInfo::TEI.at("/", get(page::root).post(tei::embed)),
        RouteInfo::OLLAMA
            .at("/api/embed", post(ollama::embed))
            .documented(ollama_docs::embed()),
        RouteInfo::OLLAMA
            .at("/api/embeddings", post(ollama::embeddings))
            .documented(ollama_docs::embeddings()),
        RouteInfo::OLLAMA
            .at("/api/tags", get(ollama::tags))
            .documented(ollama_docs::tags()),
        RouteInfo::OLLAMA
            .at("/api/show", post(ollama::show))
            .documented(ollama_docs::show()),
        RouteInfo::OLLAMA
            .at("/api/ps", get(ollama::running))
            .documented(ollama_docs::running()),
        RouteInfo::OLLAMA
            .at("/api/pull", post(ollama::pull))
            .documented(ollama_docs::pull()),
        RouteInfo::OLLAMA.at("/api/version", get(ollama::version)),
        RouteInfo::COHERE
            .at("/v2/embed", post(cohere::embed))
            .documented(cohere_docs::embed()),
        RouteInfo::COHERE
            .at("/v1/embed", post(cohere::embed_v1))
            .documented(cohere_docs::embed_v1()),
        RouteInfo::OPEN
            .at("/livez", get(health::livez))
            .documented(models_docs::live()),
        RouteInfo::OPEN
            .at("/readyz", get(health::readyz))
            .documented(models_docs::ready()),
        RouteInfo::new(None, Dialect::Tei)
            .at("/health", get(health::health))
            .documented(tei_docs::health()),
        RouteInfo::OPEN.at("/v1/cluster/auth", get(health::cluster_auth)),
        RouteInfo::OPEN.at("/metrics", get(metrics::metrics)),
        RouteInfo::OPEN.at("/admin/reload", post(admin::reload)),
        RouteInfo::OPEN.at("/openapi.json", get(openapi::document)),
        RouteInfo::OPEN.at("/docs", get(openapi::page::to_page)),
        RouteInfo::OPEN.at("/docs/{*file}", get(openapi::page::page)),
    ]
}

/// The router of the table, without layers.
pub(super) fn router() -> Router<Arc<Gateway>> {
    let routes = endpoints()
        .into_iter()
        .fold(Router::new(), |router, endpoint| {
            router.route(endpoint.path, endpoint.handler)
        });
    routes
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
}

/// The router of the administrators' own address.
pub(super) fn admin_router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/admin/reload", post(admin::reload_without_key))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
}
