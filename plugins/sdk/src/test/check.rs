//! What the gateway demands of a plugin's answers. It does not grant here, so names of models and limits are not known.

use crate::{Edits, Header, InputEdit, Inputs, Principal, Rejection};

/// Panics where the gateway would answer 503 in the plugin's place.
pub(super) fn principal(principal: &Principal) {
    let subject = &principal.subject;
    assert!(
        (1..=256).contains(&subject.len()),
        "a subject has 1 to 256 bytes: {subject:?}"
    );
    assert!(
        !subject.contains(char::is_control),
        "a subject has no control characters: {subject:?}"
    );
    assert!(
        principal.attributes.len() <= 16,
        "a principal has at most 16 attributes"
    );
    for (name, value) in &principal.attributes {
        assert!(
            name.len() + value.len() <= 256,
            "an attribute has at most 256 bytes: {name}"
        );
    }
}

/// Panics where the gateway would answer 503 in the plugin's place.
pub(super) fn rejection(rejection: &Rejection) {
    let code = &rejection.code;
    assert!(
        (400..=599).contains(&rejection.status),
        "a rejection's status is 400 to 599: {}",
        rejection.status
    );
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    assert!(
        (1..=64).contains(&code.len()) && code.bytes().all(allowed),
        "a code is 1 to 64 of a-z0-9_-.: {code:?}"
    );
    for header in &rejection.headers {
        let known = ["www-authenticate", "retry-after"].contains(&header.name.as_str());
        assert!(
            known || own_header(&header.name),
            "a plugin may not set the header {:?}",
            header.name
        );
        value(header);
    }
}

/// Panics where the gateway would answer 503 in the plugin's place.
pub(super) fn edits(edits: &Edits, inputs: &Inputs) {
    match (&edits.inputs, inputs) {
        (InputEdit::Keep, _) => {}
        (_, Inputs::Tokens(_)) => panic!("texts are edited where the client sent token ids"),
        (InputEdit::Prefix(_), Inputs::Texts(_)) => {}
        (InputEdit::Some(replacements), Inputs::Texts(texts)) => {
            let mut indexes: Vec<usize> = replacements
                .iter()
                .map(|replacement| replacement.index as usize)
                .collect();
            indexes.sort_unstable();
            assert!(
                indexes.last().is_none_or(|&last| last < texts.len()),
                "no such index: {indexes:?}"
            );
            assert!(
                indexes.windows(2).all(|pair| pair[0] < pair[1]),
                "an index is there twice: {indexes:?}"
            );
        }
        (InputEdit::All(edited), Inputs::Texts(texts)) => {
            assert_eq!(
                edited.len(),
                texts.len(),
                "the number of texts never changes"
            );
        }
    }
    for header in &edits.response_headers {
        assert!(
            own_header(&header.name),
            "a plugin may not set the header {:?}",
            header.name
        );
        value(header);
    }
}

fn own_header(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.starts_with("x-") && !name.starts_with("x-embedgate-") && name.bytes().all(allowed)
}

fn value(header: &Header) {
    let Header { name, value } = header;
    assert!(
        !value.contains(|c: char| c.is_control() && c != '\t'),
        "the header {name} has control characters"
    );
}
