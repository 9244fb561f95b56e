//! The dialect of text-embeddings-inference.
//!
//! Source: text-embeddings-inference 1.9, `docs/openapi.json` and `router/src/http/types.rs`. What is its model is here the
//! one that a member `model` names, which its own clients never send, or else the default model.

pub(super) mod parse;
pub(super) mod tokens;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use embedgate_core::Head;
use embedgate_request::{EmbedRequest, EmbedResponse, Error, Input, Step, Timings, VectorText};
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use self::{
    parse::Direction,
    tokens::{decode, tokenize},
};
use super::{
    GatewayState, admitted_request::AdmittedRequest, context::Context, dense::DenseForm,
    error::Failed, json, object::Source,
};

/// `POST /embed`: a dense vector an input.
pub(super) async fn embed(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let render = |answer: &EmbedResponse| {
        let mut out = Vec::new();
        DenseForm::Float.write_all(&mut out, answer);
        out
    };
    answer(admitted, parse::embed, render).await
}

/// `POST /embed_all`: a vector for each token, special ones too, as the model's last layer gives them.
pub(super) async fn embed_all(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let render = |answer: &EmbedResponse| {
        let mut out = Vec::new();
        json::list(&mut out, &answer.embeddings, |out, embedding| {
            let all = embedding.results.rows(Head::TokenVectors).into_iter();
            let rows = all.flat_map(|all| (0..all.rows()).map(|i| all.row(i)));
            json::list(out, rows, |out, row| VectorText::Numbers.write(row, out));
        });
        out
    };
    answer(admitted, parse::embed_all, render).await
}

/// `POST /embed_sparse`: lexical weights of each input, by token id.
pub(super) async fn embed_sparse(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let render = |answer: &EmbedResponse| {
        let mut out = Vec::new();
        json::list(&mut out, &answer.embeddings, |out, embedding| {
            let sparse = embedding.results.weights(Head::Sparse).into_iter();
            let pairs = sparse.flat_map(|sparse| sparse.indices.iter().zip(&sparse.values));
            json::list(out, pairs, |out, (&index, &value)| {
                json::write(out, &Weight { index, value });
            });
        });
        out
    };
    answer(admitted, parse::embed_sparse, render).await
}

/// The lexical weight of one token id.
#[derive(Serialize)]
struct Weight {
    index: u32,
    value: f32,
}

/// `POST /similarity`: the cosine of one sentence with each of others.
pub(super) async fn similarity(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let render = |answer: &EmbedResponse| {
        let vectors: Vec<&[f32]> = answer
            .embeddings
            .iter()
            .filter_map(|embedding| embedding.results.vector(Head::Dense))
            .collect();
        let scores: Vec<f32> = match vectors.as_slice() {
            [source, sentences @ ..] => sentences.iter().map(|one| cosine(source, one)).collect(),
            [] => Vec::new(),
        };
        let mut out = Vec::new();
        json::write(&mut out, &scores);
        out
    };
    answer(admitted, parse::similarity, render).await
}

/// The product of two vectors of length 1, summed in f64.
#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum::<f64>() as f32
}

type Parser = fn(&mut Source<'_>) -> Result<(EmbedRequest, ()), Error>;

async fn answer(
    admitted: AdmittedRequest,
    parser: Parser,
    render: impl FnOnce(&EmbedResponse) -> Vec<u8> + Send + 'static,
) -> Result<Response, Failed> {
    let started = Instant::now();
    let (request, ()) = admitted.parse(parser).await?;
    let n_characters: usize = request.inputs.iter().map(characters).sum();
    let answer = admitted.embed(request).await?;
    let timings = Arc::clone(&answer.ctx.timings);
    let compute_headers = ComputeHeaders {
        device: answer.model.info.device.clone(),
        n_characters,
        n_tokens: answer.response.n_tokens(),
        started,
    };
    let mut response = answer.write(render).await?;
    compute_headers.put(&timings, response.headers_mut());
    Ok(response)
}

/// The facts of an answer that its headers report.
pub(super) struct ComputeHeaders {
    pub(super) device: String,
    pub(super) n_characters: usize,
    pub(super) n_tokens: usize,
    pub(super) started: Instant,
}

impl ComputeHeaders {
    /// Adds the headers. Times are milliseconds; those of a step are means of the inputs that were computed.
    pub(super) fn put(&self, timings: &Timings, headers: &mut HeaderMap) {
        if let Ok(device) = HeaderValue::from_str(&self.device) {
            headers.insert("x-compute-type", device);
        }
        let took = milliseconds(self.started.elapsed());
        for (name, value) in [
            ("x-compute-characters", self.n_characters),
            ("x-compute-tokens", self.n_tokens),
            ("x-compute-time", took),
            ("x-total-time", took),
            (
                "x-tokenization-time",
                milliseconds(timings.mean(Step::Tokenize)),
            ),
            ("x-queue-time", milliseconds(timings.mean(Step::Queue))),
            (
                "x-inference-time",
                milliseconds(timings.mean(Step::Compute)),
            ),
        ] {
            headers.insert(name, value.into());
        }
    }
}

pub(super) fn characters(input: &Input) -> usize {
    match input {
        Input::Text(text) => text.chars().count(),
        Input::Tokens(_) => 0,
    }
}

fn milliseconds(time: Duration) -> usize {
    usize::try_from(time.as_millis()).unwrap_or(usize::MAX)
}

/// `GET /info`: the default model, and what a request may hold.
pub(super) async fn info(
    gateway: GatewayState,
    Context(ctx): Context,
) -> Result<Json<Value>, Failed> {
    let embedder = gateway.embedder()?;
    let model = embedder.registry().resolve_for(&ctx.principal, None)?;
    let model_type = if model.info.outputs.has(Head::Score) {
        json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}})
    } else {
        json!({"embedding": {"pooling": model.pooling}})
    };
    Ok(Json(json!({
        "model_id": model.name,
        "model_sha": model.fingerprint.to_hex().as_str(),
        "model_dtype": model.info.precision.to_string(),
        "model_type": model_type,
        "max_concurrent_requests": gateway.config.max_connections,
        "max_input_length": model.info.max_sequence_tokens,
        "max_batch_tokens": model.config.max_batch_tokens.unwrap_or(model.info.max_sequence_tokens),
        "max_batch_requests": null,
        "max_client_batch_size": gateway.config.max_inputs,
        "auto_truncate": model.config.truncate,
        "tokenization_workers": model.config.tokenizer_threads,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    })))
}
