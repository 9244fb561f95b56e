//! The parts of a plugin's answer that go to the client: refusals, and headers of the response.

use std::{sync::Arc, time::Duration};

use embedgate_request::{Error, ErrorKind};

use super::{bindings::embedgate::plugin::types, failure::Failure};

/// Headers that mean something to the gateway, or to a proxy before it.
const OURS: [&str; 6] = [
    "x-embedgate-",
    "x-request-id",
    "x-truncated",
    "x-accel-",
    "x-sendfile",
    "x-lighttpd-",
];
const MOST_CODE_BYTES: usize = 64;
const MOST_MESSAGE_BYTES: usize = 2000;
const MOST_HEADERS: usize = 16;
const MOST_HEADER_BYTES: usize = 1024;

/// The words of a plugin that the client does not get.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct HiddenMessage(String);

/// Makes an error of a refusal, where it is a legal one.
pub(super) fn refusal(rejection: types::Rejection) -> Result<Error, Failure> {
    let types::Rejection {
        status,
        code,
        mut message,
        headers,
    } = rejection;
    if !(400..=599).contains(&status) {
        return Err(Failure::Output(format!(
            "a refusal has a status of 400 to 599, got {status}"
        )));
    }
    let is_code = (1..=MOST_CODE_BYTES).contains(&code.len())
        && code
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b));
    if !is_code {
        return Err(Failure::Output(format!(
            "a code is 1 to {MOST_CODE_BYTES} of a-z, 0-9, _, - and ., got {code:.100?}"
        )));
    }
    let headers = legal_headers(headers, &["www-authenticate", "retry-after"])?;
    message.truncate(message.floor_char_boundary(MOST_MESSAGE_BYTES));
    let mut source = None;
    if status >= 500 {
        source = Some(Arc::new(HiddenMessage(message)) as Arc<dyn std::error::Error + Send + Sync>);
        message = "a plugin refused the request".into();
    }
    let retry_after = headers
        .iter()
        .find(|(name, _)| name == "retry-after")
        .and_then(|(_, value)| value.trim().parse().ok())
        .map(Duration::from_secs);
    Ok(Error {
        retry_after,
        headers: Some(headers.into()),
        source,
        ..Error::new(ErrorKind::Refused(status), message).with_code(code)
    })
}

/// Checks the headers that a plugin adds to a response.
pub(super) fn legal_headers(
    headers: Vec<types::HeaderResult>,
    known: &[&str],
) -> Result<Vec<(String, String)>, Failure> {
    if headers.len() > MOST_HEADERS {
        return Err(Failure::Output(format!("more than {MOST_HEADERS} headers")));
    }
    let mut legal = Vec::with_capacity(headers.len());
    for types::HeaderResult { name, value } in headers {
        let name = name.to_ascii_lowercase();
        let is_token = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        let may_be_set = known.contains(&name.as_str())
            || (name.starts_with("x-") && !OURS.iter().any(|ours| name.starts_with(ours)));
        if !is_token || !may_be_set {
            return Err(Failure::Output(format!(
                "the header {name:.100?} may not be set: only {} and x-*",
                known.join(", ")
            )));
        }
        let is_text = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if !is_text || value.len() > MOST_HEADER_BYTES {
            return Err(Failure::Output(format!(
                "the value of header {name} is not visible ASCII of at most {MOST_HEADER_BYTES} bytes"
            )));
        }
        legal.push((name, value));
    }
    Ok(legal)
}
