//! Answers of Ollama's routes.

use utoipa::ToSchema;

use super::Operation;
use crate::http::ollama::{OllamaEmbedRequest, OllamaPromptRequest, OllamaShowRequest};

pub(in crate::http) fn embed() -> Operation {
    Operation::post::<OllamaEmbedRequest<'_>, OllamaEmbedResponse>(
        "Embed texts",
        "As Ollama; the tag `:latest` means none.",
    )
    .tried_with(r#"{"model": "default", "input": ["The food was good."]}"#)
}

pub(in crate::http) fn embeddings() -> Operation {
    Operation::post::<OllamaPromptRequest<'_>, OllamaPromptResponse>(
        "Embed a text",
        "Ollama's older form.",
    )
    .tried_with(r#"{"model": "default", "prompt": "The food was good."}"#)
}

pub(in crate::http) fn tags() -> Operation {
    Operation::get::<OllamaTags>("List the models that serve", "")
}

pub(in crate::http) fn running() -> Operation {
    Operation::get::<OllamaRunning>("List the models in memory", "All that serve.")
}

pub(in crate::http) fn pull() -> Operation {
    Operation::post::<OllamaShowRequest, OllamaPulled>(
        "Pull a model",
        "A model that serves is there already; no other is fetched.",
    )
    .tried_with(r#"{"model": "default"}"#)
}

pub(in crate::http) fn show() -> Operation {
    Operation::post::<OllamaShowRequest, OllamaShown>("Describe a model", "")
        .tried_with(r#"{"model": "default"}"#)
}

#[derive(ToSchema)]
struct OllamaEmbedResponse {
    model: String,
    embeddings: Vec<Vec<f32>>,
    /// In nanoseconds.
    total_duration: u64,
    /// Always 0: models are loaded before the first request.
    load_duration: u64,
    prompt_eval_count: u64,
}

#[derive(ToSchema)]
struct OllamaPromptResponse {
    embedding: Vec<f32>,
}

#[derive(ToSchema)]
struct OllamaTags {
    models: Vec<OllamaModel>,
}

#[derive(ToSchema)]
struct OllamaRunning {
    models: Vec<OllamaLoaded>,
}

#[derive(ToSchema)]
struct OllamaLoaded {
    name: String,
    model: String,
    modified_at: String,
    size: u64,
    digest: String,
    details: OllamaDetails,
    /// Never.
    expires_at: String,
    size_vram: u64,
}

#[derive(ToSchema)]
struct OllamaPulled {
    /// success
    status: String,
}

#[derive(ToSchema)]
struct OllamaModel {
    name: String,
    model: String,
    modified_at: String,
    size: u64,
    digest: String,
    details: OllamaDetails,
}

#[derive(ToSchema)]
struct OllamaDetails {
    format: String,
    family: String,
    families: Vec<String>,
    /// The model's own name, for an alias.
    parent_model: String,
    parameter_size: String,
    quantization_level: String,
}

#[derive(ToSchema)]
struct OllamaShown {
    name: String,
    modified_at: String,
    details: OllamaDetails,
    capabilities: Vec<String>,
    model_info: serde_json::Value,
}
