//! Answers of the routes that rank.

use utoipa::ToSchema;

use super::Operation;
use crate::http::{
    dialect::Dialect,
    rerank::body::{RankingRequest, RerankRequest, ScoreQueries, ScoreTexts, TeiRerankRequest},
};

const MODELS: &str = "By a cross-encoder, or by an embedding model's own vectors. Scores are within 0 and 1, best first. \
                      Without `model`, the only cross-encoder or else the default model.";

pub(in crate::http) fn jina() -> Operation {
    Operation::post::<RerankRequest<'_>, JinaOrVoyageResponse>(
        "Rank documents for a query, as Jina",
        MODELS,
    )
    .tried_with(r#"{"query": "What is good to eat?", "documents": ["Rice and beans", "A stone"], "top_n": 2}"#)
}

pub(in crate::http) fn cohere() -> Operation {
    Operation::post::<RerankRequest<'_>, CohereRerankResponse>(
        "Rank documents for a query, as Cohere",
        MODELS,
    )
    .tried_with(r#"{"query": "What is good to eat?", "documents": ["Rice and beans", "A stone"], "top_n": 2}"#)
}

pub(in crate::http) fn either() -> Operation {
    Operation::post::<EitherRequest<'_>, EitherResponse>(
        "Rank documents or texts for a query, as Jina or text-embeddings-inference",
        "A body with `texts` is text-embeddings-inference's, and is answered, refused too, in its words.",
    )
    .also_fails_as(Dialect::Tei)
    .tried_with(r#"{"query": "What is good to eat?", "documents": ["Rice and beans", "A stone"]}"#)
}

pub(in crate::http) fn score() -> Operation {
    Operation::post::<ScoreRequest<'_>, ScoreResponse>(
        "Score one text with others, as vLLM",
        "In the order of the others: by a cross-encoder, or by an embedding model's own vectors, within 0 and 1.",
    )
    .tried_with(r#"{"text_1": "What is good to eat?", "text_2": ["Rice and beans", "A stone"]}"#)
}

pub(in crate::http) fn nim() -> Operation {
    Operation::post::<RankingRequest<'_>, RankingResponse>(
        "Rank passages for a query, as NVIDIA",
        "Best first, with the scores as the model gives them.",
    )
    .tried_with(r#"{"query": {"text": "What is good to eat?"}, "passages": [{"text": "Rice and beans"}, {"text": "A stone"}]}"#)
}

/// Under either pair of names.
#[derive(ToSchema)]
#[serde(untagged)]
enum ScoreRequest<'a> {
    Texts(ScoreTexts<'a>),
    Queries(ScoreQueries<'a>),
}

#[derive(ToSchema)]
struct ScoreResponse {
    id: String,
    object: String,
    data: Vec<Score>,
    model: String,
    usage: RerankUsage,
}

#[derive(ToSchema)]
struct Score {
    /// The text's place in the request.
    index: u64,
    object: String,
    score: f32,
}

#[derive(ToSchema)]
struct RankingResponse {
    rankings: Vec<Rank>,
    usage: RerankUsage,
}

#[derive(ToSchema)]
struct Rank {
    /// The passage's place in the request.
    index: u64,
    logit: f32,
}

#[derive(ToSchema)]
struct RerankResponse {
    id: String,
    model: String,
    results: Vec<RerankResult>,
    usage: RerankUsage,
    meta: serde_json::Value,
}

#[derive(ToSchema)]
#[serde(untagged)]
enum JinaOrVoyageResponse {
    Jina(RerankResponse),
    Voyage(VoyageRerankResponse),
}

#[derive(ToSchema)]
struct VoyageRerankResponse {
    object: String,
    data: Vec<VoyageRerankResult>,
    model: String,
    usage: VoyageUsage,
}

#[derive(ToSchema)]
struct VoyageRerankResult {
    /// The document's place in the request.
    index: u64,
    relevance_score: f32,
    #[schema(nullable = false)]
    document: Option<String>,
}

#[derive(ToSchema)]
struct VoyageUsage {
    total_tokens: u64,
}

#[derive(ToSchema)]
struct CohereRerankResponse {
    id: String,
    results: Vec<RerankResult>,
    meta: serde_json::Value,
}

#[derive(ToSchema)]
struct RerankResult {
    /// The document's place in the request.
    index: u64,
    relevance_score: f32,
    #[schema(nullable = false)]
    document: Option<RerankDocument>,
}

#[derive(ToSchema)]
struct RerankDocument {
    text: String,
}

#[derive(ToSchema)]
struct RerankUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

#[derive(ToSchema)]
#[serde(untagged)]
enum EitherRequest<'a> {
    Jina(RerankRequest<'a>),
    Tei(TeiRerankRequest<'a>),
}

#[derive(ToSchema)]
#[serde(untagged)]
enum EitherResponse {
    Jina(RerankResponse),
    Voyage(VoyageRerankResponse),
    Tei(Vec<TeiRank>),
}

#[derive(ToSchema)]
struct TeiRank {
    index: u64,
    score: f32,
    #[schema(nullable = false)]
    text: Option<String>,
}
