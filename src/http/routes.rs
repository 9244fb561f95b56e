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
    pooling, rerank, tei,
};

/// One line of the table: a method of a path.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    handler: MethodRouter<Arc<Gateway>>,
    pub(super) place: Place,
    /// Aliases, pages and other servers' leftovers are served without being documented.
    pub(super) operation: Option<Operation>,
}

/// The route and the dialect that a path belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The name by which the configuration knows it; none where nobody needs a key.
    pub(super) route: Option<Route>,
    /// In whose words it fails.
    pub(super) dialect: Dialect,
}

impl Place {
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

    /// The place of a path as the table writes it.
    pub(super) fn of(path: &str) -> Option<Self> {
        static PLACES: LazyLock<HashMap<&str, Place, foldhash::fast::FixedState>> =
            LazyLock::new(|| {
                let endpoints = endpoints().into_iter();
                endpoints
                    .map(|endpoint| (endpoint.path, endpoint.place))
                    .collect()
            });
        PLACES.get(path).copied()
    }

    /// A line without documentation.
    fn at(self, path: &'static str, handler: MethodRouter<Arc<Gateway>>) -> Endpoint {
        Endpoint {
            path,
            handler,
            place: self,
            operation: None,
        }
    }
}

impl Endpoint {
    fn says(self, operation: Operation) -> Self {
        Self {
            operation: Some(operation),
            ..self
        }
    }
}

/// The table.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Place::EMBEDDINGS
            .at("/v1/embeddings", post(openai::embeddings))
            .says(openai_docs::embeddings()),
        Place::EMBEDDINGS.at("/embeddings", post(openai::embeddings)),
        Place::EMBEDDINGS.at("/v1/v1/embeddings", post(openai::embeddings)),
        Place::EMBEDDINGS.at("/v1-openai/embeddings", post(openai::embeddings)),
        Place::EMBEDDINGS.at("/openai/v1/embeddings", post(openai::embeddings)),
        Place::EMBEDDINGS.at(
            "/openai/deployments/{model}/embeddings",
            post(openai::of_deployment),
        ),
        Place::EMBEDDINGS.at("/embedding", post(embedding::embed)),
        Place::EMBEDDINGS.at("/pooling", post(pooling::pool)),
        Place::MODELS.at("/support_status", get(embedding::support_status)),
        Place::MODELS
            .at("/v1/models", get(models::list))
            .says(models_docs::list()),
        Place::MODELS
            .at("/v1/models/{*id}", get(models::one))
            .says(models_docs::one()),
        Place::MODELS.at("/models", get(models::list)),
        Place::MODELS.at("/v1/v1/models", get(models::list)),
        Place::RERANK
            .at("/v1/rerank", post(rerank::jina))
            .says(rerank_docs::jina()),
        Place::RERANK.at("/v1/v1/rerank", post(rerank::jina)),
        Place::COHERE_RERANK
            .at("/v2/rerank", post(rerank::cohere))
            .says(rerank_docs::cohere()),
        Place::RERANK
            .at("/rerank", post(rerank::either))
            .says(rerank_docs::either()),
        Place::SCORE
            .at("/score", post(rerank::score))
            .says(rerank_docs::score()),
        Place::SCORE.at("/v1/score", post(rerank::score)),
        Place::SCORE
            .at("/v1/ranking", post(rerank::nim))
            .says(rerank_docs::nim()),
        Place::TEI
            .at("/embed", post(tei::embed))
            .says(tei_docs::embed()),
        Place::TEI
            .at("/embed_all", post(tei::embed_all))
            .says(tei_docs::embed_all()),
        Place::TEI
            .at("/embed_sparse", post(tei::embed_sparse))
            .says(tei_docs::embed_sparse()),
        Place::TEI
            .at("/similarity", post(tei::similarity))
            .says(tei_docs::similarity()),
        Place::TEI
            .at("/tokenize", post(tei::tokenize))
            .says(tei_docs::tokenize()),
        Place::TEI
            .at("/decode", post(tei::decode))
            .says(tei_docs::decode()),
        Place::TEI
            .at("/info", get(tei::info))
            .says(tei_docs::info()),
        Place::TEI.at("/", get(health::root).post(tei::embed)),
        Place::OLLAMA
            .at("/api/embed", post(ollama::embed))
            .says(ollama_docs::embed()),
        Place::OLLAMA
            .at("/api/embeddings", post(ollama::embeddings))
            .says(ollama_docs::embeddings()),
        Place::OLLAMA
            .at("/api/tags", get(ollama::tags))
            .says(ollama_docs::tags()),
        Place::OLLAMA
            .at("/api/show", post(ollama::show))
            .says(ollama_docs::show()),
        Place::OLLAMA
            .at("/api/ps", get(ollama::running))
            .says(ollama_docs::running()),
        Place::OLLAMA
            .at("/api/pull", post(ollama::pull))
            .says(ollama_docs::pull()),
        Place::OLLAMA.at("/api/version", get(ollama::version)),
        Place::COHERE
            .at("/v2/embed", post(cohere::embed))
            .says(cohere_docs::embed()),
        Place::COHERE
            .at("/v1/embed", post(cohere::embed_v1))
            .says(cohere_docs::embed_v1()),
        Place::OPEN
            .at("/livez", get(health::livez))
            .says(models_docs::live()),
        Place::OPEN
            .at("/readyz", get(health::readyz))
            .says(models_docs::ready()),
        Place::new(None, Dialect::Tei)
            .at("/health", get(health::health))
            .says(tei_docs::health()),
        Place::OPEN.at("/v1/cluster/auth", get(health::cluster_auth)),
        Place::OPEN.at("/metrics", get(metrics::metrics)),
        Place::OPEN.at("/admin/reload", post(admin::reload)),
        Place::OPEN.at("/openapi.json", get(openapi::document)),
        Place::OPEN.at("/docs", get(openapi::page::to_page)),
        Place::OPEN.at("/docs/{*file}", get(openapi::page::page)),
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
