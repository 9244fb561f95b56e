//! The answers of a plugin as JSON, which its author's tests compare.

use std::{error, iter};

use embedgate_request::{EmbedRequest, Error, ErrorKind, Identity, Input, InputKind, Lane};
use serde_json::{Map, Value, json};

use crate::wasm::failure::Failure;

/// Describes who the caller is.
pub(super) fn describe(identity: &Identity) -> Value {
    let models = identity.allowed_models.as_ref();
    json!({
        "subject": &*identity.subject,
        "tenant": identity.tenant,
        "scopes": identity.scopes,
        "models": models.map(|models| models.iter().map(|model| &model.0).collect::<Vec<_>>()),
        "lane": identity.lane.map(Lane::name),
        "attributes": pairs(&identity.attributes),
    })
}

/// Describes a request as it is after its change.
pub(super) fn describe_request(request: &EmbedRequest) -> Value {
    let input = |input: &Input| match input {
        Input::Text(text) => json!(text),
        Input::Tokens(ids) => json!(ids),
    };
    json!({
        "model": request.model,
        "inputs": request.inputs.iter().map(input).collect::<Vec<_>>(),
        "dimensions": request.dimensions,
        "kind": match request.kind {
            InputKind::Unspecified => "unspecified",
            InputKind::Query => "query",
            InputKind::Document => "document",
        },
    })
}

/// Describes a refusal.
pub(super) fn refused(error: &Error) -> Value {
    let status = match error.kind {
        ErrorKind::Refused(status) => status,
        _ => 400,
    };
    json!({"rejection": {
        "status": status,
        "code": error.code,
        "message": error.to_string(),
        "headers": pairs(error.headers()),
    }})
}

/// Describes a failure, with its causes.
pub(super) fn failed(failure: &Failure) -> Value {
    let causes: Vec<String> = iter::successors(Some(failure as &dyn error::Error), |e| e.source())
        .map(ToString::to_string)
        .collect();
    json!({"failure": failure.kind(), "cause": causes.join(": ")})
}

/// Makes an object of pairs.
pub(super) fn pairs(pairs: &[(String, String)]) -> Value {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect::<Map<_, _>>()
        .into()
}
