//! The dialect of Ollama, as far as embeddings go.
//!
//! Source: Ollama 0.12, `docs/api.md`. Times are in nanoseconds.

use std::time::Instant;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use embedgate_request::{
    EmbedRequest, EmbedResponse, Error, Input, Principal, TokenIds, VectorText,
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Gateway, GatewayState,
    admitted_request::AdmittedRequest,
    context::Context,
    dense::DenseForm,
    error::Failed,
    input::{self, Inputs},
    json,
    member::{Count, Raw},
    object::{Members, Source},
    openapi::lists::Texts,
};
use crate::model::RegistryEntry;

/// Ollama's names end in a tag; this one means none.
const LATEST: &str = ":latest";
/// The time when a model leaves the memory, as Ollama writes it for a model that stays.
const NEVER: &str = "2318-01-01T00:00:00Z";

/// The body of a request for embeddings. Its `options` and `keep_alive` ask for how Ollama runs a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct OllamaEmbedRequest<'a> {
    model: Option<String>,
    /// An older name of model.
    name: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = OllamaInput)]
    input: Option<Raw<'a>>,
    /// false: over-long inputs are refused.
    truncate: Option<bool>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    dimensions: Option<Count>,
}

impl<'a> Members<'a> for OllamaEmbedRequest<'a> {
    const NEEDED: &'static str = "model and input";
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
enum OllamaInput {
    One(String),
    Several(#[schema(inline)] Texts),
}

/// The body of the older form: one prompt.
#[derive(Deserialize, ToSchema)]
pub(super) struct OllamaPromptRequest<'a> {
    model: Option<String>,
    /// An older name of model.
    name: Option<String>,
    #[serde(borrow)]
    #[schema(value_type = String)]
    prompt: Option<Raw<'a>>,
    truncate: Option<bool>,
    #[schema(value_type = Option<u64>, minimum = 0)]
    dimensions: Option<Count>,
}

impl<'a> Members<'a> for OllamaPromptRequest<'a> {
    const NEEDED: &'static str = "model and prompt";
}

/// The body of a request about a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct OllamaShowRequest {
    model: Option<String>,
    name: Option<String>,
}

impl Members<'_> for OllamaShowRequest {
    const NEEDED: &'static str = "model";
}

/// `POST /api/embed`.
pub(super) async fn embed(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let started = Instant::now();
    let render = move |answer: &EmbedResponse| {
        let mut out = br#"{"model":"#.to_vec();
        json::write(&mut out, &answer.model);
        out.extend_from_slice(br#","embeddings":"#);
        DenseForm::Float.write_all(&mut out, answer);
        let times = json!({
            "total_duration": u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            "load_duration": 0,
            "prompt_eval_count": answer.n_tokens(),
        });
        // The members of the object go on.
        out.push(b',');
        out.extend_from_slice(&times.to_string().as_bytes()[1..]);
        out
    };
    answer(admitted, embed_request, render).await
}

/// `POST /api/embeddings`, the older form: one prompt, one vector.
pub(super) async fn embeddings(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let render = |answer: &EmbedResponse| {
        let mut out = br#"{"embedding":"#.to_vec();
        let first = answer.embeddings.first();
        let dense = first.and_then(|embedding| embedding.dense());
        DenseForm::Float.write(&mut out, dense);
        out.push(b'}');
        out
    };
    answer(admitted, prompt_request, render).await
}

fn embed_request(source: &mut Source<'_>) -> Result<(EmbedRequest, ()), Error> {
    let body: OllamaEmbedRequest<'_> = source.members()?;
    let inputs = Inputs::alike("input", source.max_inputs);
    let request = EmbedRequest {
        model: body.model.or(body.name),
        truncate: body.truncate,
        dimensions: Count::get(body.dimensions),
        ..of(input::read(inputs, body.input)?)
    };
    Ok((request, ()))
}

fn prompt_request(source: &mut Source<'_>) -> Result<(EmbedRequest, ()), Error> {
    let body: OllamaPromptRequest<'_> = source.members()?;
    let request = EmbedRequest {
        model: body.model.or(body.name),
        truncate: body.truncate,
        dimensions: Count::get(body.dimensions),
        ..of(input::read(Inputs::alike("prompt", 1), body.prompt)?)
    };
    Ok((request, ()))
}

/// A request as Ollama's are: for vectors as lists of numbers, and without token ids.
fn of(inputs: Vec<Input>) -> EmbedRequest {
    EmbedRequest {
        text: Some(VectorText::Numbers),
        token_ids: TokenIds::Reject,
        ..EmbedRequest::new(inputs)
    }
}

type Parser = fn(&mut Source<'_>) -> Result<(EmbedRequest, ()), Error>;

async fn answer(
    admitted: AdmittedRequest,
    parser: Parser,
    render: impl FnOnce(&EmbedResponse) -> Vec<u8> + Send + 'static,
) -> Result<Response, Failed> {
    let (mut request, ()) = admitted.parse(parser).await?;
    let asked = request.model.clone().filter(|name| !name.is_empty());
    request.model = request.model.map(|name| known(&admitted, name));
    let mut answer = admitted.embed(request).await?;
    if let Some(asked) = asked {
        answer.response.model = asked;
    }
    Ok(answer.write(render).await?)
}

/// The name in a request about a model.
fn named(admitted: &AdmittedRequest) -> Result<String, Error> {
    let body: OllamaShowRequest = admitted.source().members()?;
    let name = body.model.or(body.name).unwrap_or_default();
    Ok(known(admitted, name))
}

/// A name as it is, or without its tag where there is no such model.
fn known(admitted: &AdmittedRequest, name: String) -> String {
    let registry = admitted.embedder().registry();
    match name.strip_suffix(LATEST) {
        Some(without) if !registry.is_known(&name) => without.to_owned(),
        _ => name,
    }
}

/// `GET /api/tags`: the models that serve or are loaded when they are asked for, by each of their names.
pub(super) async fn tags(
    gateway: GatewayState,
    Context(ctx): Context,
) -> Result<Json<Value>, Failed> {
    let embedder = gateway.embedder()?;
    let entries = embedder.registry().entries().iter();
    let models = listed(&gateway, entries, &ctx.principal, &json!({}));
    Ok(Json(json!({"models": models})))
}

/// `GET /api/ps`: the models that are in memory.
pub(super) async fn running(
    gateway: GatewayState,
    Context(ctx): Context,
) -> Result<Json<Value>, Failed> {
    let loaded = json!({"expires_at": NEVER, "size_vram": 0});
    let embedder = gateway.embedder()?;
    let entries = embedder.registry().entries().iter();
    let entries = entries.filter(|entry| entry.loaded().is_some());
    let models = listed(&gateway, entries, &ctx.principal, &loaded);
    Ok(Json(json!({"models": models})))
}

/// `POST /api/pull`: a model that serves is there. Clients pull what they do not find in the list, and expect an end.
pub(super) async fn pull(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let name = named(&admitted)?;
    let principal = &admitted.ctx.principal;
    admitted.embedder().shown(principal, &name)?.outline()?;
    // One line is a stream of one, and an object.
    Ok(Json(json!({"status": "success"})).into_response())
}

/// Each name of each of the models that the caller may use, as Ollama lists models, with some more members.
fn listed<'a>(
    gateway: &Gateway,
    entries: impl Iterator<Item = &'a RegistryEntry>,
    principal: &Principal,
    more: &Value,
) -> Vec<Value> {
    let usable =
        entries.filter(|entry| entry.outline().is_ok() && principal.may_use(entry.names()));
    let named = usable.flat_map(|entry| entry.names().map(move |name| (entry, name)));
    let one = |(entry, name): (&RegistryEntry, &str)| {
        let mut listed = describe(gateway, entry);
        let tagged = match name.contains(':') {
            true => name.to_owned(),
            false => format!("{name}{LATEST}"),
        };
        listed["name"] = json!(tagged);
        listed["model"] = json!(tagged);
        if name != entry.name {
            listed["details"]["parent_model"] = json!(entry.name);
        }
        if let (Value::Object(listed), Value::Object(more)) = (&mut listed, more) {
            listed.extend(more.clone());
        }
        listed
    };
    named.map(one).collect()
}

/// `POST /api/show`: one model.
pub(super) async fn show(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let name = named(&admitted)?;
    let entry = admitted.embedder().shown(&admitted.ctx.principal, &name)?;
    let outline = entry.outline()?;
    let mut shown = describe(&admitted.gateway, entry);
    let capabilities: &[&str] = match outline.scores {
        true => &[],
        false => &["embedding"],
    };
    shown["capabilities"] = json!(capabilities);
    shown["model_info"] = json!({
        "general.architecture": "bert",
        "bert.context_length": outline.max_sequence_tokens,
        "bert.embedding_length": outline.dimensions,
    });
    Ok(Json(shown).into_response())
}

/// `GET /api/version`: which Ollama this is like.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": "0.12.0"}))
}

fn describe(gateway: &Gateway, entry: &RegistryEntry) -> Value {
    let model = entry.loaded();
    let digest = model.map(|model| model.fingerprint.to_hex().to_string());
    let precision = model.map(|model| model.info.precision.to_string());
    let started = std::time::UNIX_EPOCH + std::time::Duration::from_secs(gateway.started);
    json!({
        "name": entry.name,
        "model": entry.name,
        "modified_at": humantime::format_rfc3339_seconds(started).to_string(),
        "size": 0,
        "digest": digest.unwrap_or_default(),
        "details": {
            "format": "safetensors",
            "family": "bert",
            "families": ["bert"],
            "parent_model": "",
            "parameter_size": "",
            "quantization_level": precision.unwrap_or_default(),
        },
    })
}
