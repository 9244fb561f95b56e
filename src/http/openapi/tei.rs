//! Answers of text-embeddings-inference's routes.

use utoipa::ToSchema;

use super::Operation;
use crate::http::tei::{
    parse::{TeiEmbedRequest, TeiSimilarityRequest},
    tokens::{TeiDecodeRequest, TeiTokenizeRequest},
};

pub(in crate::http) fn embed() -> Operation {
    Operation::post::<TeiEmbedRequest<'_>, TeiVectors>(
        "Embed texts",
        "As text-embeddings-inference; also at `POST /`.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn embed_all() -> Operation {
    Operation::post::<TeiEmbedRequest<'_>, TeiTokenVectors>(
        "Embed texts without pooling",
        "A vector for each token, special ones too, as the model's last layer gives them.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn embed_sparse() -> Operation {
    Operation::post::<TeiEmbedRequest<'_>, TeiSparse>(
        "Weigh the tokens of texts",
        "Lexical weights above 0, by token ids ascending.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn similarity() -> Operation {
    Operation::post::<TeiSimilarityRequest<'_>, TeiScores>(
        "Compare a sentence with others",
        "The cosine of the sentence's vector with that of each other.",
    )
    .tried_with(r#"{"inputs": {"source_sentence": "The food was good.", "sentences": ["I liked to eat there."]}}"#)
}

pub(in crate::http) fn tokenize() -> Operation {
    Operation::post::<TeiTokenizeRequest<'_>, TeiTokens>(
        "Split texts into tokens",
        "Places are counted in characters. A text and its prompt are split together.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn decode() -> Operation {
    Operation::post::<TeiDecodeRequest<'_>, TeiTexts>("Join tokens to texts", "")
        .tried_with(r#"{"ids": [5, 6]}"#)
}

pub(in crate::http) fn health() -> Operation {
    Operation::status("Is anybody served?", "200 without a body, or 503.")
}

pub(in crate::http) fn info() -> Operation {
    Operation::get::<TeiInfo>("Describe the default model", "")
}

#[derive(ToSchema)]
struct TeiVectors(Vec<Vec<f32>>);

#[derive(ToSchema)]
struct TeiTokenVectors(Vec<Vec<Vec<f32>>>);

#[derive(ToSchema)]
struct TeiSparse(Vec<Vec<TeiWeight>>);

#[derive(ToSchema)]
struct TeiWeight {
    /// The token's id.
    index: u32,
    value: f32,
}

#[derive(ToSchema)]
struct TeiScores(Vec<f32>);

#[derive(ToSchema)]
struct TeiTokens(Vec<Vec<TeiToken>>);

#[derive(ToSchema)]
struct TeiToken {
    id: u32,
    text: String,
    special: bool,
    #[schema(required)]
    start: Option<u64>,
    #[schema(required)]
    stop: Option<u64>,
}

#[derive(ToSchema)]
struct TeiTexts(Vec<String>);

#[derive(ToSchema)]
struct TeiInfo {
    model_id: String,
    model_sha: String,
    model_dtype: String,
    /// embedding or reranker, and what there is to say of it.
    model_type: serde_json::Value,
    max_concurrent_requests: u64,
    /// In tokens.
    max_input_length: u64,
    max_batch_tokens: u64,
    #[schema(required)]
    max_batch_requests: Option<u64>,
    max_client_batch_size: u64,
    auto_truncate: bool,
    tokenization_workers: u64,
    version: String,
    #[schema(required)]
    sha: Option<String>,
    #[schema(required)]
    docker_label: Option<String>,
}
