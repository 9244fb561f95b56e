//! The `OpenAPI` 3.1 document at `/openapi.json`, made from the route table, and a page that renders it at `/docs`.
//!
//! A request's body is described by the struct that it is read into. Answers are written by hand elsewhere: the files in
//! `openapi/` hold what they look like, a dialect each, and nothing makes values of those types. `tests/it/openapi.rs` compares
//! all with what the program takes and answers.
#![expect(dead_code, reason = "these types only describe")]

pub(super) mod cohere;
mod document;
mod failures;
pub(super) mod lists;
pub(super) mod models;
pub(super) mod ollama;
pub(super) mod openai;
mod operation;
pub(super) mod page;
pub(super) mod rerank;
pub(super) mod tei;

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse, Response},
};

use self::document::build;
pub(super) use self::operation::Operation;
use super::GatewayState;

/// `GET /openapi.json`. It asks for a key only where one is needed.
pub(super) async fn document(gateway: GatewayState) -> Response {
    static DOCUMENTS: LazyLock<[Bytes; 2]> = LazyLock::new(|| {
        [false, true].map(|needs_keys| {
            let document = build(needs_keys).to_json();
            Bytes::from(document.expect("a document of strings is JSON"))
        })
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    let needs_keys = !gateway.authenticator.is_open();
    (json, DOCUMENTS[usize::from(needs_keys)].clone()).into_response()
}
