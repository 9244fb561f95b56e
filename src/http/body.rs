//! Reads a request's body within its limits of size and time.

use std::time::{Duration, Instant};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;

use crate::error::{Error, ErrorKind};

/// A body that is too large is still read for so long, and thrown away: a client that is cut off while it sends would
/// see a broken connection instead of the answer that says why.
const LINGER: Duration = Duration::from_secs(5);
/// More than this is not read even to be thrown away.
const LINGER_BYTES: usize = 512 << 20;

/// Reads the whole body.
///
/// # Errors
/// `PayloadTooLarge`, `RequestTimeout`, or `InvalidRequest` when the client breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    deadline: Instant,
) -> Result<Bytes, Error> {
    if stated_length(headers).is_some_and(|length| length > max_bytes as u64) {
        // A client that waits for "100 Continue" has not sent anything yet.
        if !headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(too_large(max_bytes));
    }
    match tokio::time::timeout_at(deadline.into(), collect(body, max_bytes)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            ErrorKind::RequestTimeout,
            "the body did not arrive within server.request_timeout",
        )),
    }
}

async fn collect(mut body: Body, max_bytes: usize) -> Result<Bytes, Error> {
    let mut first: Option<Bytes> = None;
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error {
            source: Some(std::sync::Arc::new(e)),
            ..Error::new(ErrorKind::InvalidRequest, "the body broke off")
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = first.as_ref().map_or(all.len(), Bytes::len);
        if so_far + data.len() > max_bytes {
            drain(body).await;
            return Err(too_large(max_bytes));
        }
        // Most bodies are one piece, which needs no copy.
        match first.take() {
            None if all.is_empty() => first = Some(data),
            None => all.extend_from_slice(&data),
            Some(piece) => {
                all.extend_from_slice(&piece);
                all.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.into()))
}

async fn drain(mut body: Body) {
    let mut left = LINGER_BYTES;
    let thrown_away = async {
        while let Some(Ok(frame)) = body.frame().await {
            let n = frame.data_ref().map_or(0, Bytes::len);
            if n > left {
                return;
            }
            left -= n;
        }
    };
    // Either end is fine: all was read, or enough.
    drop(tokio::time::timeout(LINGER, thrown_away).await);
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn too_large(max_bytes: usize) -> Error {
    let message = format!(
        "the body is larger than {max_bytes} bytes: split the request, or raise server.max_body"
    );
    Error::new(ErrorKind::PayloadTooLarge, message)
}
