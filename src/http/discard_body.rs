//! Discards what a client still sends after its request was refused.
//!
//! A client that is cut off while it sends sees a broken connection instead of the answer that says why. So what is left
//! of a refused body is read and thrown away, for a while, before the answer goes out.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::header::{CONTENT_LENGTH, EXPECT},
    response::Response,
};
use http_body_util::BodyExt;

/// Longest time for which the rest of a refused body is read.
const DISCARD: Duration = Duration::from_secs(5);
/// Most bytes that are read of a body that states its length.
const DISCARD_BYTES: usize = 512 << 20;
/// Bytes that are read of one that does not say its length, and may have no end: a client that streams a body of 100 MB still hears why it is
/// refused.
const DISCARD_BYTES_UNSAID: usize = 128 << 20;
/// Bytes that are read of one whose sender may wait for "100 Continue", or has sent it at once.
const DISCARD_BYTES_EXPECTED: usize = 1 << 20;

pub(super) async fn discard_rest(
    request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    if request.body().is_end_stream() {
        return answer(request).await;
    }
    let headers = request.headers();
    let most = if headers.contains_key(EXPECT) {
        DISCARD_BYTES_EXPECTED
    } else if headers.contains_key(CONTENT_LENGTH) {
        DISCARD_BYTES
    } else {
        DISCARD_BYTES_UNSAID
    };
    let (parts, body) = request.into_parts();
    let shared = SharedBody(Arc::new(Mutex::new(body)));
    let response = answer(Request::from_parts(parts, Body::new(shared.clone()))).await;
    if !shared.is_end_stream() {
        // Either end is fine: all was read, or enough.
        drop(tokio::time::timeout(DISCARD, throw_away(shared, most)).await);
    }
    response
}

async fn throw_away(mut body: SharedBody, most: usize) {
    let mut left = most;
    while let Some(Ok(frame)) = body.frame().await {
        let n = frame.data_ref().map_or(0, Bytes::len);
        if n > left {
            return;
        }
        left -= n;
    }
}

/// A body whose rest can be read after the handler has let go of it.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .size_hint()
    }
}
