//! An answer, from the results to the response: in the dialect's words, with the headers that all dialects share.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use embedgate_core::HeadForm;
use embedgate_request::{
    Cut, EmbedRequest, EmbedResponse, Embedding, Error, Held, RequestContext, VectorText,
};

use super::{body, error::add_headers, trace::RequestStats};
use crate::{blocking, model::Model};

/// Answers with at least this many numbers are rendered off the threads that serve connections: about 5 ms of work.
const RENDER_ELSEWHERE: usize = 200_000;
/// Bytes that a number takes while it is answered: kept, copied, and written as text or as base64.
const BYTES_PER_NUMBER: usize = 4 + 4 + 13;
const BYTES_PER_BASE64_NUMBER: usize = 4 + 4 + 6;
/// Bytes that a lexical weight takes: id, weight, and both as text, perhaps with the token's own.
const BYTES_PER_WEIGHT: usize = 8 + 8 + 48;
/// The header that says which inputs were cut lists so many at most.
const MAX_TRUNCATED: usize = 32;

/// An answer that is still to be written, and the memory that it will take.
pub(super) struct PendingAnswer {
    pub(super) response: EmbedResponse,
    pub(super) ctx: RequestContext,
    pub(super) model: Arc<Model>,
    /// The memory that it will take.
    pub(super) memory: Held,
}

impl PendingAnswer {
    /// Holds more memory until the answer is written.
    pub(super) fn keep(&mut self, more: Held) {
        self.memory.merge(more);
    }

    /// Writes the answer as the dialect does.
    pub(super) async fn write(
        self,
        render: impl FnOnce(&EmbedResponse) -> Vec<u8> + Send + 'static,
    ) -> Result<Response, Error> {
        let mut answer = self.response;
        let added = std::mem::take(&mut answer.headers);
        let stats = RequestStats {
            model: shown_name(&answer.model),
            n_inputs: answer.embeddings.len(),
            n_tokens: answer.n_tokens(),
            n_cached: answer.n_cached,
            n_truncated: answer.cuts().count(),
        };
        let cuts: Vec<Cut> = answer.cuts().collect();
        let numbers: usize = answer.embeddings.iter().map(numbers).sum();
        let rendering = self.ctx.timings.span("render");
        let json =
            blocking::run_if_large(numbers >= RENDER_ELSEWHERE, move || render(&answer)).await?;
        drop(rendering);
        let rendered = RenderedAnswer {
            json,
            memory: self.memory,
            added,
            cuts,
        };
        Ok(rendered.respond(stats))
    }
}

/// A model's name as the log has it: where any name is taken, it is the client's text.
pub(super) fn shown_name(name: &str) -> String {
    let is_plain = |c: char| c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'));
    if name.len() <= 100 && name.chars().all(is_plain) {
        return name.to_owned();
    }
    let short = name.chars().take(100);
    short.flat_map(char::escape_debug).collect()
}

/// An answer as it is written.
pub(super) struct RenderedAnswer {
    pub(super) json: Vec<u8>,
    /// Its memory, until the last byte is written.
    pub(super) memory: Held,
    /// Headers that plugins add.
    pub(super) added: Vec<(String, String)>,
    /// The inputs that were cut.
    pub(super) cuts: Vec<Cut>,
}

impl RenderedAnswer {
    /// The response, with what the log is told.
    pub(super) fn respond(self, stats: RequestStats) -> Response {
        let mut response = json_body(self.json, self.memory);
        add_headers(response.headers_mut(), &self.added);
        if let Some(value) = truncated(&self.cuts) {
            response.headers_mut().insert("x-truncated", value);
        }
        response.extensions_mut().insert(stats);
        response
    }
}

/// A body of JSON with its memory.
pub(super) fn json_body(json: Vec<u8>, memory: Held) -> Response {
    let body = body::holding(json, memory);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Numbers that are still to be written.
fn numbers(embedding: &Embedding) -> usize {
    let results = embedding.results.iter();
    results.map(|(_, value)| value.numbers().len()).sum()
}

/// Estimates the bytes of the answer before any work is done for it; results by token are counted approximately.
pub(super) fn answer_bytes(model: &Model, request: &EmbedRequest) -> usize {
    let own = model.info.dimensions;
    let per_number = match request.text {
        Some(VectorText::Base64) => BYTES_PER_BASE64_NUMBER,
        Some(VectorText::Numbers) | None => BYTES_PER_NUMBER,
    };
    let (mut fixed, mut per_token) = (0, 0);
    for head in request.outputs.iter() {
        match head.form() {
            HeadForm::Vector => fixed += request.dimensions.unwrap_or(own).min(own) * per_number,
            HeadForm::Weights => per_token += BYTES_PER_WEIGHT,
            HeadForm::Rows { .. } => per_token += own * per_number,
            HeadForm::Score => fixed += per_number,
        }
    }
    let n_tokens = match per_token {
        0 => 0,
        _ => request
            .inputs
            .iter()
            .map(|input| model.reserve_tokens(input))
            .sum(),
    };
    request.inputs.len() * fixed + n_tokens * per_token
}

/// Lists the inputs that were cut, as `index:from>to` in tokens, separated by commas; `...` where there are more. A query that
/// documents are ranked for is `query:from>to`. Where more are not counted, `from` is `>100000`.
fn truncated(cuts: &[Cut]) -> Option<HeaderValue> {
    let mut all: Vec<String> = cuts
        .iter()
        .map(|cut| match cut.index {
            Some(index) => format!("{index}:{cut}"),
            None => format!("query:{cut}"),
        })
        .take(MAX_TRUNCATED + 1)
        .collect();
    if all.is_empty() {
        return None;
    }
    if let Some(one_too_many) = all.get_mut(MAX_TRUNCATED) {
        *one_too_many = "...".into();
    }
    HeaderValue::from_str(&all.join(",")).ok()
}
