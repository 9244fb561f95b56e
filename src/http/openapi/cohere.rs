//! Answers of Cohere's `/v2/embed` and `/v1/embed`.

use utoipa::ToSchema;

use super::Operation;
use crate::http::cohere::CohereEmbedRequest;

pub(in crate::http) fn embed() -> Operation {
    Operation::post::<CohereEmbedRequest<'_>, CohereEmbedResponse>(
        "Embed texts",
        "As Cohere, version 2; texts alone, no images.",
    )
    .tried_with(r#"{"texts": ["The food was good."], "input_type": "search_document", "embedding_types": ["float"]}"#)
}

pub(in crate::http) fn embed_v1() -> Operation {
    Operation::post::<CohereEmbedRequest<'_>, CohereEmbedV1Response>(
        "Embed texts, version 1",
        "As Cohere, version 1: the answer repeats the texts, and without embedding_types it is a list of vectors.",
    )
    .tried_with(r#"{"texts": ["The food was good."], "input_type": "search_document"}"#)
}

#[derive(ToSchema)]
struct CohereEmbedResponse {
    id: String,
    embeddings: CohereEmbeddings,
    meta: serde_json::Value,
    response_type: String,
}

/// The vectors, in each of the types asked for.
#[derive(ToSchema)]
struct CohereEmbeddings {
    #[schema(nullable = false)]
    float: Option<Vec<Vec<f32>>>,
    /// Little-endian f32.
    #[schema(nullable = false)]
    base64: Option<Vec<String>>,
    /// A bit a number, whether it is above 0: eight in a signed byte, the first the highest.
    #[schema(nullable = false)]
    binary: Option<Vec<Vec<i8>>>,
    /// The bits of binary in unsigned bytes.
    #[schema(nullable = false)]
    ubinary: Option<Vec<Vec<u8>>>,
}

#[derive(ToSchema)]
struct CohereEmbedV1Response {
    id: String,
    texts: Vec<String>,
    embeddings: CohereV1Embeddings,
    meta: serde_json::Value,
    response_type: String,
}

#[derive(ToSchema)]
#[serde(untagged)]
enum CohereV1Embeddings {
    Floats(Vec<Vec<f32>>),
    ByType(CohereEmbeddings),
}
