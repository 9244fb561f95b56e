//! A connection that ends itself when the client is too slow.
//!
//! hyper's timer cannot tell a client that sends its header slowly from one that keeps an idle connection for later.
//! [`TimedStream`] can: the first request of a connection and the rest of each header must come soon, an idle connection
//! may wait for long, and while a request is served or its answer written, the request's own deadline and the write
//! timer rule.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use embedgate_config::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Instant, Sleep},
};

use super::{idle::IdleHandle, serving::Serving};

/// While an answer waits for its client, the client takes at least so many bytes in each such time: a slow mobile line takes ten
/// times as much.
const LEAST_WRITTEN: usize = 64 << 10;
const WRITE_WINDOW: Duration = Duration::from_secs(30);

/// The first bytes of a connection of HTTP/2.
///
/// Source: RFC 9113, 3.4.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    version: Version,
    /// True from the first byte on.
    has_begun: watch::Sender<bool>,
    /// With HTTP/2, the end of the time in which a client must take more of its answers, and what it had taken before.
    answers_until: Option<(Instant, u64)>,
    answers_timer: Pin<Box<Sleep>>,
}

/// The version of HTTP, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// So many bytes were those of HTTP/2's preface.
    Unknown(usize),
    Http1,
    /// Bytes that arrive may be no header. One that trickles in is ended with the idle connection.
    Http2,
}

impl Version {
    /// The version after these bytes.
    fn after(self, bytes: &[u8]) -> Self {
        let Self::Unknown(n) = self else {
            return self;
        };
        let rest = &HTTP2_PREFACE[n..];
        let n_compared = rest.len().min(bytes.len());
        match rest[..n_compared] == bytes[..n_compared] {
            false => Self::Http1,
            true if n_compared == rest.len() => Self::Http2,
            true => Self::Unknown(n + n_compared),
        }
    }
}

impl<S> TimedStream<S> {
    /// A stream whose first request must have come at `deadline`.
    pub(super) fn new(
        stream: S,
        config: &ServerConfig,
        idle: IdleHandle,
        deadline: Instant,
    ) -> Self {
        let (header_timeout, idle_timeout) = (config.header_timeout.0, config.idle_timeout.0);
        Self {
            stream,
            header_timeout,
            idle_timeout,
            serving: Serving::default(),
            idle,
            phase: Phase::Header,
            read_deadline: deadline,
            read_timer: Box::pin(tokio::time::sleep_until(deadline)),
            write_timer: Box::pin(tokio::time::sleep(WRITE_WINDOW)),
            write_waits: false,
            n_written: 0,
            version: Version::Unknown(0),
            has_begun: watch::Sender::new(false),
            answers_until: None,
            answers_timer: Box::pin(tokio::time::sleep(WRITE_WINDOW)),
        }
    }

    /// Says when the first byte has come.
    pub(super) fn begun(&self) -> watch::Receiver<bool> {
        self.has_begun.subscribe()
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
        match phase {
            Phase::Idle => self.idle.wait(),
            Phase::Serving => self.idle.leave(),
            Phase::Header => {}
        }
        let timeout = if phase == Phase::Header {
            self.header_timeout
        } else {
            self.idle_timeout
        };
        self.read_deadline = Instant::now() + timeout;
    }

    /// Notes what came from the client.
    fn note_read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.version == Version::Unknown(0) {
            self.has_begun.send_replace(true);
        }
        self.version = self.version.after(bytes);
        match (self.version, self.phase) {
            // Its first request may be on its way for as long as the next ones may.
            (Version::Http2, Phase::Header) => {
                self.serving.set_has_tasks();
                self.enter(Phase::Idle);
            }
            (Version::Http2, _) => {}
            (_, phase) => {
                self.idle.leave();
                if phase == Phase::Idle {
                    self.enter(Phase::Header);
                }
            }
        }
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

    /// Ready when a client of HTTP/2 has taken too little of its answers, which wait for its windows: the system takes all that is
    /// written then.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.serving.answers() {
            self.answers_until = None;
            return Poll::Pending;
        }
        loop {
            let n_taken = self.serving.n_taken();
            let now = Instant::now();
            let (until, before) = match self.answers_until {
                Some((until, before)) if until > now => (until, before),
                Some((_, before)) if n_taken < before + LEAST_WRITTEN as u64 => {
                    return Poll::Ready(());
                }
                _ => (now + WRITE_WINDOW, n_taken),
            };
            self.answers_until = Some((until, before));
            self.answers_timer.as_mut().reset(until);
            if self.answers_timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
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
            Poll::Ready(_) if self.write_waits => {
                self.write_waits = false;
                self.serving.set_write_waits(false);
            }
            Poll::Ready(_) => {}
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
            self.serving.set_write_waits(true);
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Before it is asked whether requests are in service: the end of one wakes this task, and is not missed.
        this.serving.register(cx.waker());
        if this.serving.is_busy() || this.write_waits {
            this.enter(Phase::Serving);
        } else if this.phase == Phase::Serving {
            this.enter(Phase::Idle);
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if result.is_ready() {
            this.note_read(&buf.filled()[before..]);
            return result;
        }
        if this.phase != Phase::Serving && this.idle.poll_called(cx).is_ready() {
            return Poll::Ready(Err(timed_out("it made room for another connection")));
        }
        let waits_for = match this.phase {
            Phase::Serving if this.version == Version::Http2 => {
                let message = "the client takes its answers too slowly";
                return this.poll_answers(cx).map(|()| Err(timed_out(message)));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_known_by_the_whole_preface_however_it_arrives() {
        let whole = &HTTP2_PREFACE[..];
        assert_eq!(Version::Unknown(0).after(whole), Version::Http2);
        let split = Version::Unknown(0).after(&whole[..2]);
        assert_eq!(split, Version::Unknown(2));
        assert_eq!(
            split.after(&[&whole[2..], b"more"].concat()),
            Version::Http2
        );
        for other in [&b"POST / HTTP/1.1"[..], b"PRIX / HTTP/1.1", b"G"] {
            assert_eq!(Version::Unknown(0).after(other), Version::Http1);
        }
    }
}
