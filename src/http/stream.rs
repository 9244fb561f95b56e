//! A connection that ends itself when the client is too slow.
//!
//! hyper's timer cannot tell a client that sends its header slowly from one that keeps an idle connection for later.
//! [`TimedStream`] can: the first request of a connection and the rest of each header must come soon, an idle connection
//! may wait for long, and while a request is served or its answer written, the request's own deadline and the write
//! timer rule.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use embedgate_config::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::idle::IdleHandle;

/// While an answer waits for its client, the client takes at least so many bytes in each such time: a slow mobile line takes ten
/// times as much.
const LEAST_WRITTEN: usize = 64 << 10;
const WRITE_WINDOW: Duration = Duration::from_secs(30);

/// The first bytes of a client that speaks HTTP/2 without having asked.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const HTTP2_REFUSAL: &[u8] = b"embedgate speaks HTTP/1.1 here, not HTTP/2";

/// An answer that such a client understands: empty SETTINGS, and GOAWAY with the code `HTTP_1_1_REQUIRED` and a text.
///
/// Source: RFC 9113, 3.4, 6.5, 6.8 and 7.
fn http2_refusal() -> Vec<u8> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let length = 8 + HTTP2_REFUSAL.len();
    let go_away = [0, 0, length.to_le_bytes()[0], 7, 0, 0, 0, 0, 0];
    let (last_stream, code) = ([0; 4], [0, 0, 0, 0xd]);
    [&settings[..], &go_away, &last_stream, &code, HTTP2_REFUSAL].concat()
}

/// Counts the requests of one connection that are in service: 0 or 1.
#[derive(Clone, Default)]
pub(super) struct Serving(Arc<AtomicUsize>);

impl Serving {
    /// Marks a request as being served, until the guard is dropped.
    pub(super) fn enter(&self) -> ServingGuard {
        self.0.fetch_add(1, Ordering::AcqRel);
        ServingGuard(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

pub(super) struct ServingGuard(Serving);

impl Drop for ServingGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The event that the stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the next request of a connection that had one.
    Idle,
    /// For the first request, or for the rest of a header.
    Header,
    /// For the body of a request, its answer, or the client to take the answer.
    Serving,
}

/// A stream with timers. hyper must poll it for reading after each answer, or its timers do not run.
pub(super) struct TimedStream<S> {
    stream: S,
    header_timeout: Duration,
    idle_timeout: Duration,
    serving: Serving,
    idle: IdleHandle,
    phase: Phase,
    /// The time when the phase has lasted too long. The timer is set to it only when a task waits: most phases are
    /// short.
    read_deadline: Instant,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    /// True while the client has not taken all that was written.
    write_waits: bool,
    /// Bytes that it took since the timer was set.
    n_written: usize,
    /// True until the connection's first byte.
    is_new: bool,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, config: &ServerConfig, idle: IdleHandle) -> Self {
        let (header_timeout, idle_timeout) = (config.header_timeout.0, config.idle_timeout.0);
        Self {
            stream,
            header_timeout,
            idle_timeout,
            serving: Serving::default(),
            idle,
            phase: Phase::Header,
            read_deadline: Instant::now() + header_timeout,
            read_timer: Box::pin(tokio::time::sleep(header_timeout)),
            write_timer: Box::pin(tokio::time::sleep(WRITE_WINDOW)),
            write_waits: false,
            n_written: 0,
            is_new: true,
        }
    }

    /// The handle with which the service marks its requests.
    pub(super) fn serving(&self) -> Serving {
        self.serving.clone()
    }

    fn enter(&mut self, phase: Phase) {
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        if phase == Phase::Idle {
            self.idle.wait();
        }
        let timeout = if phase == Phase::Header {
            self.header_timeout
        } else {
            self.idle_timeout
        };
        self.read_deadline = Instant::now() + timeout;
    }

    /// Ready when the phase has lasted too long.
    fn poll_read_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // A timer that is set too early is cheaper than one that is set anew for each request.
            if self.read_timer.deadline() > self.read_deadline {
                self.read_timer.as_mut().reset(self.read_deadline);
            }
            if self.read_timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= self.read_deadline {
                return Poll::Ready(());
            }
            self.read_timer.as_mut().reset(self.read_deadline);
        }
    }

    /// After each attempt to write `asked` bytes: starts the timer when the client does not take all of them, and ends the
    /// stream when it took too few until the timer's end.
    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        asked: usize,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(n)) if n < asked => {
                self.expect_writes();
                self.n_written += n;
            }
            Poll::Ready(_) => self.write_waits = false,
            Poll::Pending => {
                self.expect_writes();
                while self.write_timer.as_mut().poll(cx).is_ready() {
                    if self.n_written < LEAST_WRITTEN {
                        let message = "the client takes its answer too slowly";
                        return Poll::Ready(Err(timed_out(message)));
                    }
                    self.begin_window();
                }
            }
        }
        result
    }

    fn expect_writes(&mut self) {
        if !self.write_waits {
            self.write_waits = true;
            self.begin_window();
        }
    }

    fn begin_window(&mut self) {
        self.n_written = 0;
        self.write_timer
            .as_mut()
            .reset(Instant::now() + WRITE_WINDOW);
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncWrite + Unpin> TimedStream<S> {
    /// Tells a client of HTTP/2 why hyper is about to hang up, as far as the system takes it at once.
    fn refuse_http2(&mut self, cx: &mut Context<'_>, first: &[u8]) {
        if first.starts_with(HTTP2_PREFACE) {
            let written = Pin::new(&mut self.stream).poll_write(cx, &http2_refusal());
            tracing::debug!(?written, "a client speaks HTTP/2 without having asked");
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.serving.is_busy() || this.write_waits {
            this.enter(Phase::Serving);
        } else if this.phase == Phase::Serving {
            this.enter(Phase::Idle);
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if result.is_ready() {
            if buf.filled().len() > before {
                if std::mem::take(&mut this.is_new) {
                    this.refuse_http2(cx, &buf.filled()[before..]);
                }
                this.idle.leave();
                if this.phase == Phase::Idle {
                    this.enter(Phase::Header);
                }
            }
            return result;
        }
        if this.phase != Phase::Serving && this.idle.poll_called(cx).is_ready() {
            return Poll::Ready(Err(timed_out("it made room for another connection")));
        }
        let waits_for = match this.phase {
            Phase::Serving => return Poll::Pending,
            Phase::Header => "the header of a request did not arrive in time",
            Phase::Idle => "no request for too long",
        };
        this.poll_read_timer(cx).map(|()| Err(timed_out(waits_for)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch_write(cx, buf.len(), result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let asked = bufs.iter().map(|buf| buf.len()).sum();
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch_write(cx, asked, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
