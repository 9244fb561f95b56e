//! Bodies of text-embeddings-inference's routes.

use utoipa::ToSchema;

use super::{
    Operation,
    openai::{AnyIdLists, Ids, Mixed, Texts},
};

pub(in crate::http) fn embed() -> Operation {
    Operation::post::<TeiEmbedRequest, TeiVectors>(
        "Embed texts",
        "As text-embeddings-inference; also at `POST /`.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn embed_all() -> Operation {
    Operation::post::<TeiEmbedRequest, TeiTokenVectors>(
        "Embed texts without pooling",
        "A vector for each token, special ones too, as the model's last layer gives them.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn embed_sparse() -> Operation {
    Operation::post::<TeiEmbedRequest, TeiSparse>(
        "Weigh the tokens of texts",
        "Lexical weights above 0, by token ids ascending.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn similarity() -> Operation {
    Operation::post::<TeiSimilarityRequest, TeiScores>(
        "Compare a sentence with others",
        "The cosine of the sentence's vector with that of each other.",
    )
    .tried_with(r#"{"inputs": {"source_sentence": "The food was good.", "sentences": ["I liked to eat there."]}}"#)
}

pub(in crate::http) fn tokenize() -> Operation {
    Operation::post::<TeiTokenizeRequest, TeiTokens>(
        "Split texts into tokens",
        "Places are counted in characters. A text and its prompt are split together.",
    )
    .tried_with(r#"{"inputs": ["The food was good."]}"#)
}

pub(in crate::http) fn decode() -> Operation {
    Operation::post::<TeiDecodeRequest, TeiTexts>("Join tokens to texts", "")
        .tried_with(r#"{"ids": [5, 6]}"#)
}

pub(in crate::http) fn health() -> Operation {
    Operation::status("Is anybody served?", "200 without a body, or 503.")
}

pub(in crate::http) fn info() -> Operation {
    Operation::get::<TeiInfo>("Describe the default model", "")
}

#[derive(ToSchema)]
pub(super) struct TeiEmbedRequest {
    /// The model's name; text-embeddings-inference has but one.
    model: Option<String>,
    inputs: TeiInputs,
    /// false: vectors as they come from the model.
    normalize: Option<bool>,
    /// Cut to so many dimensions.
    #[schema(minimum = 0)]
    dimensions: Option<u64>,
    /// false: over-long inputs are refused.
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    /// A prompt of the model, by its name.
    prompt_name: Option<String>,
    parameters: Option<serde_json::Value>,
}

/// One text, one text's token ids, or several of either.
#[derive(ToSchema)]
#[serde(untagged)]
enum TeiInputs {
    Text(String),
    Ids(#[schema(inline)] Ids),
    Several(#[schema(inline)] Mixed),
}

/// The side on which over-long inputs are cut.
#[derive(ToSchema)]
pub(super) enum Direction {
    Right,
    Left,
    #[serde(rename = "right")]
    LowerRight,
    #[serde(rename = "left")]
    LowerLeft,
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
struct TeiSimilarityRequest {
    model: Option<String>,
    inputs: TeiSentences,
    parameters: Option<TeiParameters>,
}

#[derive(ToSchema)]
struct TeiSentences {
    source_sentence: String,
    sentences: TeiOthers,
}

/// One sentence, or several.
#[derive(ToSchema)]
#[serde(untagged)]
enum TeiOthers {
    One(String),
    Several(#[schema(inline)] Texts),
}

#[derive(ToSchema)]
struct TeiParameters {
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    prompt_name: Option<String>,
}

#[derive(ToSchema)]
struct TeiScores(Vec<f32>);

#[derive(ToSchema)]
struct TeiTokenizeRequest {
    model: Option<String>,
    inputs: TeiOthers,
    /// true: the tokens that begin and end a text are there too. The default is true.
    add_special_tokens: Option<bool>,
    /// A prompt of the model, by its name.
    prompt_name: Option<String>,
}

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
struct TeiDecodeRequest {
    model: Option<String>,
    ids: TeiIds,
    /// true where nothing is said.
    skip_special_tokens: Option<bool>,
}

/// One list of ids, or several.
#[derive(ToSchema)]
#[serde(untagged)]
enum TeiIds {
    One(#[schema(inline)] Ids),
    Several(#[schema(inline)] AnyIdLists),
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
