//! The changes that a preprocessor makes: checked, then made, all or nothing.

use std::collections::HashSet;

use embedgate_request::{EmbedRequest, Input, InputKind};

use crate::wasm::{bindings::embedgate::plugin::types, failure::Failure, refusal};

const MOST_MODEL_BYTES: usize = 256;

/// Changes the request, all or nothing. Its texts may then have `max_texts` bytes in sum.
pub(super) fn apply(
    edits: types::Edits,
    request: &mut EmbedRequest,
    max_texts: usize,
) -> Result<Vec<(String, String)>, Failure> {
    let wrong = |message: String| Err(Failure::Output(message));
    let headers = refusal::legal_headers(edits.response_headers, &[])?;
    if let Some(model) = &edits.model
        && (!(1..=MOST_MODEL_BYTES).contains(&model.len()) || model.chars().any(char::is_control))
    {
        return wrong(format!(
            "a model's name has 1 to {MOST_MODEL_BYTES} bytes without control characters"
        ));
    }
    if edits.dimensions == Some(0) {
        return wrong("dimensions are at least 1".into());
    }
    let n = request.inputs.len();
    let before = Input::total_bytes(&request.inputs);
    let after = match &edits.inputs {
        types::InputEdit::Keep => 0,
        types::InputEdit::Prefix(prefix) => before.saturating_add(prefix.len().saturating_mul(n)),
        // Some that are replaced still count: one bound for what the request and the guest hold together.
        types::InputEdit::Some(all) => before + all.iter().map(|new| new.text.len()).sum::<usize>(),
        types::InputEdit::All(texts) => texts.iter().map(String::len).sum(),
    };
    if after > max_texts {
        return wrong(format!(
            "made {after} bytes of text of {before}; {max_texts} are allowed"
        ));
    }
    let has_texts = matches!(request.inputs.first(), Some(Input::Text(_)));
    match edits.inputs {
        types::InputEdit::Keep => {}
        _ if !has_texts => return wrong("token ids cannot be edited".into()),
        types::InputEdit::Prefix(prefix) => {
            for input in &mut request.inputs {
                if let Input::Text(text) = input {
                    text.insert_str(0, &prefix);
                }
            }
        }
        types::InputEdit::Some(replacements) => {
            let mut seen = HashSet::with_capacity(replacements.len());
            for replacement in &replacements {
                let index = replacement.index as usize;
                if index >= n || !seen.insert(index) {
                    return wrong(format!(
                        "replaced input {index} of {n}, or replaced it twice"
                    ));
                }
            }
            for replacement in replacements {
                request.inputs[replacement.index as usize] = Input::Text(replacement.text);
            }
        }
        types::InputEdit::All(texts) => {
            if texts.len() != n {
                return wrong(format!("gave {} texts for {n} inputs", texts.len()));
            }
            request.inputs = texts.into_iter().map(Input::Text).collect();
        }
    }
    if let Some(model) = edits.model {
        request.model = Some(model);
    }
    if let Some(dimensions) = edits.dimensions {
        request.dimensions = Some(dimensions as usize);
    }
    if let Some(kind) = edits.kind {
        request.kind = match kind {
            types::InputKind::Unspecified => InputKind::Unspecified,
            types::InputKind::Query => InputKind::Query,
            types::InputKind::Document => InputKind::Document,
        };
    }
    Ok(headers)
}
