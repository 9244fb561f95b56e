//! Reads a request's body within its limits of size, time and memory, and holds the memory of an answer until it is written.

use std::{io::Read, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use embedgate_config::ServerConfig;
use embedgate_request::{Account, Error, ErrorKind, Held, RequestContext};
use http_body::Frame;
use http_body_util::BodyExt;

use crate::blocking;

/// A body comes with at least so many bytes in each such time, but for its last part: a slow mobile line sends ten times as much.
const LEAST_BYTES: usize = 16 << 10;
const WINDOW: Duration = Duration::from_secs(15);
/// Packed bodies of so many bytes are unpacked off the threads that serve connections: about a millisecond of work.
const UNPACK_ELSEWHERE: usize = 4 << 10;

/// A body, read whole, and the memory that it holds.
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    /// Given back when the inputs are embedded: what is parsed takes about as much as the body.
    pub(super) memory: Option<Held>,
}

/// A body that holds its memory until its last byte is written, or the client is gone.
pub(super) fn holding(bytes: Vec<u8>, memory: Held) -> Body {
    let answer = Holding {
        bytes,
        _memory: memory,
    };
    // The connection keeps the buffer, and with it the memory, until all of it is written.
    Body::from(Bytes::from_owner(answer))
}

struct Holding {
    bytes: Vec<u8>,
    _memory: Held,
}

impl AsRef<[u8]> for Holding {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
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
    ctx: &RequestContext,
) -> Result<WholeBody, Error> {
    let is_gzip = is_gzip(headers)?;
    let max_bytes = config.max_body.bytes();
    if stated_length(headers).is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large(max_bytes));
    }
    let account = &ctx.memory;
    let reading = async {
        let whole = collect(body, max_bytes, account).await?;
        match is_gzip {
            true => inflated(whole, max_bytes, account).await,
            false => Ok(whole),
        }
    };
    match tokio::time::timeout_at(ctx.deadline.into(), reading).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            ErrorKind::RequestTimeout,
            "the body did not arrive within server.request_timeout",
        )),
    }
}

async fn collect(mut body: Body, max_bytes: usize, account: &Account) -> Result<WholeBody, Error> {
    let mut held: Option<Held> = None;
    let mut first: Option<Bytes> = None;
    let mut all = Vec::new();
    let mut pace = Pace::new();
    while let Some(frame) = pace.next(&mut body).await? {
        let frame = frame.map_err(|e| Error {
            source: Some(Arc::new(e)),
            ..Error::new(ErrorKind::InvalidRequest, "the body broke off")
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        pace.came(data.len());
        let so_far = first.as_ref().map_or(all.len(), Bytes::len);
        if so_far + data.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        let piece = account.take(data.len())?;
        match &mut held {
            Some(held) => held.merge(piece),
            None => held = Some(piece),
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

/// True for a body that is compressed in the one way that is known here.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Error> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(false);
    };
    let encoding = encoding.to_str().unwrap_or("?").trim();
    match encoding.to_ascii_lowercase().as_str() {
        "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => {
            let message = format!(
                "content-encoding {encoding} is not supported: send the body as it is, or as gzip"
            );
            Err(Error::new(ErrorKind::InvalidRequest, message))
        }
    }
}

/// Unpacks a body; it is within the limits as if it had come so.
async fn inflated(
    packed: WholeBody,
    max_bytes: usize,
    account: &Account,
) -> Result<WholeBody, Error> {
    let account = account.clone();
    // Some kilobytes may be megabytes.
    blocking::run_if_large(packed.bytes.len() >= UNPACK_ELSEWHERE, move || {
        let mut unpacked = WholeBody {
            bytes: Bytes::new(),
            memory: None,
        };
        let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        let mut reader = flate2::read::MultiGzDecoder::new(packed.bytes.as_ref());
        loop {
            let n = reader.read(&mut piece).map_err(|e| Error {
                source: Some(Arc::new(e)),
                ..Error::new(ErrorKind::InvalidRequest, "the body is not valid gzip")
            })?;
            if n == 0 {
                break;
            }
            if all.len() + n > max_bytes {
                return Err(too_large(max_bytes));
            }
            let more = account.take(n)?;
            match &mut unpacked.memory {
                Some(held) => held.merge(more),
                None => unpacked.memory = Some(more),
            }
            all.extend_from_slice(&piece[..n]);
        }
        unpacked.bytes = all.into();
        Ok(unpacked)
    })
    .await?
}

/// The pace of a body: it must come fast enough.
struct Pace {
    window_ends: tokio::time::Instant,
    bytes: usize,
}

impl Pace {
    fn new() -> Self {
        Self {
            window_ends: tokio::time::Instant::now() + WINDOW,
            bytes: 0,
        }
    }

    fn came(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The body's next frame; none at its end.
    async fn next(
        &mut self,
        body: &mut Body,
    ) -> Result<Option<Result<Frame<Bytes>, axum::Error>>, Error> {
        loop {
            if let Ok(frame) = tokio::time::timeout_at(self.window_ends, body.frame()).await {
                return Ok(frame);
            }
            if self.bytes < LEAST_BYTES {
                let message = format!(
                    "the body comes too slowly: at least {} KiB in {} s are asked for",
                    LEAST_BYTES >> 10,
                    WINDOW.as_secs()
                );
                return Err(Error::new(ErrorKind::RequestTimeout, message));
            }
            *self = Self::new();
        }
    }
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

#[cfg(test)]
mod tests {
    use embedgate_request::{Holder, Memory, Principal};
    use futures_util::stream;

    use super::*;

    fn account(memory: &Arc<Memory>) -> Account {
        memory.open(Holder::of(&Principal::Anonymous, None))
    }

    /// A body of pieces, one after each pause.
    fn in_pieces(n: usize, size: usize, pause: Duration) -> Body {
        Body::from_stream(stream::unfold(0, move |i| async move {
            tokio::time::sleep(pause).await;
            (i < n).then(|| (Ok::<_, std::io::Error>(vec![b'x'; size]), i + 1))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_slowly_is_taken_and_one_that_hardly_comes_is_not() {
        let account = account(&Memory::new(1 << 20));
        let slow = in_pieces(40, 2 << 10, Duration::from_secs(1));
        let whole = collect(slow, 1 << 20, &account).await.unwrap();
        assert_eq!(whole.bytes.len(), 80 << 10);
        let trickle = in_pieces(1000, 1, Duration::from_secs(5));
        let started = tokio::time::Instant::now();
        let refused = collect(trickle, 1 << 20, &account).await.err().unwrap();
        assert_eq!(refused.kind, ErrorKind::RequestTimeout);
        assert!(started.elapsed() <= WINDOW + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn an_answer_holds_its_memory_until_its_last_byte_is_let_go() {
        let memory = Memory::new(4 << 10);
        let held = account(&memory).take(1 << 10).unwrap();
        let mut body = holding(vec![b'x'; 1 << 10], held);
        let frame = body.frame().await.unwrap().unwrap();
        drop(body);
        let mut bytes = frame.into_data().unwrap();
        let last = bytes.split_off(1000);
        drop(bytes);
        assert!(account(&memory).take(1).is_err(), "24 bytes are unwritten");
        drop(last);
        assert!(account(&memory).take(1).is_ok());
    }
}
