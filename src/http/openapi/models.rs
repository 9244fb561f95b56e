//! Bodies of the models' and the probes' routes.

use utoipa::ToSchema;

use super::Operation;

pub(in crate::http) fn list() -> Operation {
    Operation::get::<ModelList>(
        "List the models",
        "Those that serve or are loaded on demand, and that the caller may use.",
    )
}

pub(in crate::http) fn one() -> Operation {
    Operation::get::<Model>(
        "Describe a model",
        "By name or alias, which may hold slashes.",
    )
}

pub(in crate::http) fn live() -> Operation {
    Operation::probe::<Live>("Is the process alive?", "")
}

pub(in crate::http) fn ready() -> Operation {
    Operation::probe::<Ready>("Are requests served?", "503 where not.")
}

#[derive(ToSchema)]
struct ModelList {
    #[schema(pattern = "^list$")]
    object: String,
    data: Vec<Model>,
}

#[derive(ToSchema)]
struct Model {
    id: String,
    #[schema(pattern = "^model$")]
    object: String,
    /// The time when the server started, in seconds since 1970.
    created: u64,
    owned_by: String,
    model_type: ModelType,
    /// In tokens.
    max_model_len: u64,
    dimensions: u64,
    aliases: Vec<String>,
    status: ModelStatus,
    /// The backend; given only for a model in memory, like the next two members.
    backend: Option<String>,
    device: Option<String>,
    precision: Option<String>,
    /// The names by which requests ask for what the model gives; given only for a model in memory.
    outputs: Option<Vec<String>>,
}

#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
enum ModelStatus {
    Ready,
    /// Its backend is being loaded again after a fault.
    Down,
    /// It is loaded by the first request that names it.
    OnDemand,
    /// It could not be loaded.
    Failed,
    Fetching,
    Loading,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
enum ModelType {
    Embedding,
    Rerank,
}

#[derive(ToSchema)]
struct Live {
    status: String,
}

#[derive(ToSchema)]
struct Ready {
    status: String,
    models: Vec<ModelState>,
}

#[derive(ToSchema)]
struct ModelState {
    id: String,
    status: ModelStatus,
    /// The device; given only for a model in memory, like the next member.
    device: Option<String>,
    precision: Option<String>,
    /// The bytes fetched; given only for a model that is being fetched, like the next member.
    fetched_bytes: Option<u64>,
    total_bytes: Option<u64>,
}
