//! Bodies of the routes that rank.

use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    Operation,
    openai::{Text, Texts, one_of},
    tei::Direction,
};
use crate::http::dialect::Dialect;

const MODELS: &str = "By a cross-encoder, or by an embedding model's own vectors. Scores are within 0 and 1, best first. \
                      Without `model`, the only cross-encoder or else the default model.";

pub(in crate::http) fn jina() -> Operation {
    Operation::post::<RerankRequest, JinaOrVoyageResponse>(
        "Rank documents for a query, as Jina",
        MODELS,
    )
    .tried_with(r#"{"query": "What is good to eat?", "documents": ["Rice and beans", "A stone"], "top_n": 2}"#)
}

pub(in crate::http) fn cohere() -> Operation {
    Operation::post::<RerankRequest, CohereRerankResponse>(
        "Rank documents for a query, as Cohere",
        MODELS,
    )
    .tried_with(r#"{"query": "What is good to eat?", "documents": ["Rice and beans", "A stone"], "top_n": 2}"#)
}

pub(in crate::http) fn either() -> Operation {
    Operation::post::<EitherRequest, EitherResponse>(
        "Rank documents or texts for a query, as Jina or text-embeddings-inference",
        "A body with `texts` is text-embeddings-inference's, and is answered, refused too, in its words.",
    )
    .also_fails_as(Dialect::Tei)
    .tried_with(r#"{"query": "What is good to eat?", "documents": ["Rice and beans", "A stone"]}"#)
}

pub(in crate::http) fn score() -> Operation {
    Operation::post::<ScoreRequest, ScoreResponse>(
        "Score one text with others, as vLLM",
        "In the order of the others: by a cross-encoder, or by an embedding model's own vectors, within 0 and 1.",
    )
    .tried_with(r#"{"text_1": "What is good to eat?", "text_2": ["Rice and beans", "A stone"]}"#)
}

pub(in crate::http) fn nim() -> Operation {
    Operation::post::<RankingRequest, RankingResponse>(
        "Rank passages for a query, as NVIDIA",
        "Best first, with the scores as the model gives them.",
    )
    .tried_with(r#"{"query": {"text": "What is good to eat?"}, "passages": [{"text": "Rice and beans"}, {"text": "A stone"}]}"#)
}

/// Under either pair of names.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum ScoreRequest {
    Texts(ScoreTexts),
    Queries(ScoreQueries),
}

#[derive(ToSchema)]
pub(super) struct ScoreTexts {
    model: Option<String>,
    /// One text, also as an object with text.
    text_1: Text,
    text_2: RerankDocuments,
}

#[derive(ToSchema)]
pub(super) struct ScoreQueries {
    model: Option<String>,
    /// One text, also as an object with text.
    queries: Text,
    documents: RerankDocuments,
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
pub(super) struct RankingRequest {
    model: Option<String>,
    query: Text,
    passages: RerankDocuments,
    /// END: over-long passages are cut; NONE: they are refused.
    truncate: Option<RankingTruncate>,
}

#[derive(ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum RankingTruncate {
    End,
    None,
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
pub(super) struct RerankRequest {
    model: Option<String>,
    query: Text,
    documents: RerankDocuments,
    /// So many of the best; all where nothing is said.
    #[schema(minimum = 0)]
    top_n: Option<u64>,
    /// Voyage's name of top_n. With it, or with truncation, the answer is as Voyage writes it.
    #[schema(minimum = 0)]
    top_k: Option<u64>,
    /// true: the answer holds the documents.
    return_documents: Option<Flag>,
    /// Scores as the model gives them.
    raw_scores: Option<Flag>,
    /// false: over-long documents are refused.
    truncate: Option<Flag>,
    /// Voyage's name of truncate.
    truncation: Option<Flag>,
    truncation_direction: Option<Direction>,
    /// Only so many tokens of each document count; all where nothing is said.
    #[schema(minimum = 0)]
    max_tokens_per_doc: Option<u64>,
    /// The treatment of documents that are longer than the model takes.
    long_documents: Option<LongDocuments>,
}

/// Cut them, or refuse them as `truncate` says; or score them in windows that overlap, of which the best one counts.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum LongDocuments {
    Truncate,
    Windows,
}

/// One document, or several.
#[derive(ToSchema)]
#[serde(untagged)]
enum RerankDocuments {
    One(String),
    Several(#[schema(inline)] Texts),
}

/// true or false, as such or as clients write it that make strings of all.
struct Flag;

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        let words = ["true", "True", "false", "False", ""];
        one_of(
            [true.into(), false.into()]
                .into_iter()
                .chain(words.map(Value::from)),
        )
    }
}

impl ToSchema for Flag {}

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
enum EitherRequest {
    Jina(RerankRequest),
    Tei(TeiRerankRequest),
}

#[derive(ToSchema)]
struct TeiRerankRequest {
    model: Option<String>,
    query: Text,
    texts: RerankDocuments,
    /// Scores as the model gives them.
    raw_scores: Option<Flag>,
    /// true: the answer holds the texts.
    return_text: Option<Flag>,
    truncate: Option<Flag>,
    truncation_direction: Option<Direction>,
    #[schema(minimum = 0)]
    top_n: Option<u64>,
    #[schema(minimum = 0)]
    max_tokens_per_doc: Option<u64>,
    long_documents: Option<LongDocuments>,
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
