//! Small parts of reading and writing JSON that dialects share.

use embedgate_request::InputKind;

/// Reads the purpose of inputs in the words of Cohere, Voyage, NVIDIA and Jina; other words say nothing.
pub(super) fn input_kind(word: Option<&str>) -> InputKind {
    match word {
        Some("query" | "search_query" | "retrieval.query") => InputKind::Query,
        Some("document" | "passage" | "search_document" | "retrieval.passage") => {
            InputKind::Document
        }
        _ => InputKind::Unspecified,
    }
}

/// Line and column count from the field's own start, which would mislead.
pub(super) fn without_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or_default()
}

/// Appends anything that serializes.
pub(super) fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value)
        .expect("strings and finite numbers into memory always succeed");
}

/// Appends a list, an item at a time.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, one) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, one);
    }
    out.push(b']');
}
