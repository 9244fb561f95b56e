//! Reads a request's body within its limits of size, time and the memory of all bodies.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use embedgate_config::ServerConfig;
use embedgate_request::{Error, ErrorKind};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// When the memory for bodies is all taken, requests in flight give some back within about this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The memory that all bodies together may take, in KiB.
pub(crate) struct BodyMemory {
    free: Arc<Semaphore>,
    kib: usize,
}

impl BodyMemory {
    /// Makes the whole amount available.
    #[must_use]
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let kib = config.max_bodies.bytes() >> 10;
        let kib = kib.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self {
            free: Arc::new(Semaphore::new(kib)),
            kib,
        }
    }

    /// Takes memory for one more piece.
    ///
    /// # Errors
    /// `Overloaded` when there is not so much left, `PayloadTooLarge` when there never is.
    pub(super) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        self.take_beside(0, bytes)
    }

    /// Takes memory for one more piece of a request that holds so much already.
    ///
    /// # Errors
    /// As [`BodyMemory::take`].
    pub(super) fn take_beside(
        &self,
        held: usize,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, Error> {
        if (held + bytes) >> 10 > self.kib {
            let message = "this request and its answer exceed server.max_bodies: split the request";
            return Err(Error::new(ErrorKind::PayloadTooLarge, message));
        }
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.free)
            .try_acquire_many_owned(kib)
            .map_err(|_| Error {
                retry_after: Some(RETRY_AFTER),
                ..Error::new(
                    ErrorKind::Overloaded,
                    "the requests and answers in memory exceed server.max_bodies: try again later",
                )
            })
    }
}

/// A body, read whole, and the memory that it holds.
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    /// Given back when the inputs are embedded: what is parsed takes about as much as the body.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

/// A body that holds its memory until it is sent, or the client is gone.
pub(super) fn holding(bytes: Vec<u8>, memory: OwnedSemaphorePermit) -> Body {
    Body::new(Holding {
        body: Full::from(bytes),
        _memory: memory,
    })
}

struct Holding {
    body: Full<Bytes>,
    _memory: OwnedSemaphorePermit,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the whole body.
///
/// # Errors
/// `PayloadTooLarge`, `Overloaded`, `RequestTimeout`, or `InvalidRequest` when the client breaks off.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    config: &ServerConfig,
    memory: &BodyMemory,
    deadline: Instant,
) -> Result<WholeBody, Error> {
    if let Some(encoding) = headers
        .get(header::CONTENT_ENCODING)
        .filter(|value| *value != "identity")
    {
        let shown = encoding.to_str().unwrap_or("?");
        let message = format!("content-encoding {shown} is not supported: send the body as it is");
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    let max_bytes = config.max_body.bytes();
    if stated_length(headers).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    match tokio::time::timeout_at(deadline.into(), collect(body, max_bytes, memory)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            ErrorKind::RequestTimeout,
            "the body did not arrive within server.request_timeout",
        )),
    }
}

async fn collect(
    mut body: Body,
    max_bytes: usize,
    memory: &BodyMemory,
) -> Result<WholeBody, Error> {
    let mut held: Option<OwnedSemaphorePermit> = None;
    let mut first: Option<Bytes> = None;
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error {
            source: Some(Arc::new(e)),
            ..Error::new(ErrorKind::InvalidRequest, "the body broke off")
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = first.as_ref().map_or(all.len(), Bytes::len);
        if so_far + data.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        // Pieces may be smaller than the unit of memory.
        let has = held.as_ref().map_or(0, |held| held.num_permits() << 10);
        let needs = so_far + data.len();
        if needs > has {
            let piece = memory.take(needs - has)?;
            match &mut held {
                Some(held) => held.merge(piece),
                None => held = Some(piece),
            }
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
    Ok(WholeBody {
        bytes: first.unwrap_or_else(|| all.into()),
        memory: held,
    })
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
