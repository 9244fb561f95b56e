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

/// A client that takes nothing of its answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

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

/// What the stream waits for.
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
    phase: Phase,
    /// When the phase has lasted too long. The timer is set to it only when somebody waits: most phases are short.
    read_deadline: Instant,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    write_waits: bool,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, config: &ServerConfig) -> Self {
        let (header_timeout, idle_timeout) = (config.header_timeout.0, config.idle_timeout.0);
        Self {
            stream,
            header_timeout,
            idle_timeout,
            serving: Serving::default(),
            phase: Phase::Header,
            read_deadline: Instant::now() + header_timeout,
            read_timer: Box::pin(tokio::time::sleep(header_timeout)),
            write_timer: Box::pin(tokio::time::sleep(WRITE_TIMEOUT)),
            write_waits: false,
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

    /// After each attempt to write: starts the timer when the client takes nothing, and ends the stream when it is over.
    fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_waits = false;
            return result;
        }
        if !self.write_waits {
            self.write_waits = true;
            self.write_timer
                .as_mut()
                .reset(Instant::now() + WRITE_TIMEOUT);
        }
        match self.write_timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(timed_out("the client takes nothing of its answer")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
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
            if this.phase == Phase::Idle && buf.filled().len() > before {
                this.enter(Phase::Header);
            }
            return result;
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
        self.watch_write(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch_write(cx, result)
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
