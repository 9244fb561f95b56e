//! Accepts connections and serves each until it ends, within limits of number and time.
//!
//! axum's own `serve` sets no timer for headers, and hyper's timer cannot tell a client that sends its header slowly from
//! one that keeps an idle connection for later. [`TimedStream`] can: a header must be complete soon after its first byte,
//! an idle connection may wait for long, and while a request is served the request's own deadline rules.

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

use axum::{Router, extract::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, Sleep},
};
use tower::ServiceExt;

use super::tidy_path;
use crate::{
    config::ServerConfig,
    shutdown::{Shutdown, Stage},
};

/// A client that takes nothing of its answer for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept, such as for want of file descriptors, it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every request in flight was answered.
    Drained,
    /// The drain time was over, or a second signal came, with so many connections left.
    Forced {
        /// Connections that were cut off.
        connections: usize,
    },
}

/// Serves connections until the shutdown begins, then waits for requests in flight.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &ServerConfig,
    shutdown: &Shutdown,
) -> End {
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.reached(Stage::Draining) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, slot) = accepted;
        let timed = TimedStream::new(stream, config);
        let serving = Arc::clone(&timed.serving);
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, guard) = (router.clone(), ServingGuard::new(&serving));
            async move {
                let response = router
                    .oneshot(tidy_path(request.map(axum::body::Body::new)))
                    .await;
                drop(guard);
                response
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(timed), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A broken connection is the client's business, and tells us nothing that we could act on.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    tracing::info!(in_flight = graceful.count(), "draining: no new connections");
    let left = || config.max_connections - slots.available_permits();
    tokio::select! {
        () = drained(graceful, &slots, config.max_connections) => End::Drained,
        () = tokio::time::sleep(config.drain_timeout.0) => End::Forced { connections: left() },
        () = shutdown.reached(Stage::Forced) => End::Forced { connections: left() },
    }
}

/// Waits until every connection has ended and its task has given its slot back.
async fn drained(graceful: GracefulShutdown, slots: &Semaphore, all: usize) {
    graceful.shutdown().await;
    // An error means that the semaphore was closed, which nobody does.
    drop(
        slots
            .acquire_many(u32::try_from(all).unwrap_or(u32::MAX))
            .await,
    );
}

/// Waits for a free slot first: connections beyond the limit wait in the system's backlog.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Small answers must not wait for more data; if it cannot be set, they do.
                drop(stream.set_nodelay(true));
                return (stream, slot);
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Marks a request as being served, from its header to its answer.
struct ServingGuard(Arc<AtomicUsize>);

impl ServingGuard {
    fn new(serving: &Arc<AtomicUsize>) -> Self {
        serving.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(serving))
    }
}

impl Drop for ServingGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a connection without a request in service waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For the first byte of a request.
    Idle,
    /// For the rest of a header.
    Header,
    /// For the body or the answer of a request: its own deadline rules.
    Serving,
}

/// A TCP stream that ends itself when the client is too slow.
struct TimedStream {
    stream: TcpStream,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// Requests of this connection in service: 0 or 1.
    serving: Arc<AtomicUsize>,
    phase: Phase,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Pin<Box<Sleep>>,
    write_waits: bool,
}

impl TimedStream {
    fn new(stream: TcpStream, config: &ServerConfig) -> Self {
        let (header_timeout, idle_timeout) = (config.header_timeout.0, config.idle_timeout.0);
        Self {
            stream,
            header_timeout,
            idle_timeout,
            serving: Arc::new(AtomicUsize::new(0)),
            phase: Phase::Idle,
            read_timer: Box::pin(tokio::time::sleep(idle_timeout)),
            write_timer: Box::pin(tokio::time::sleep(WRITE_TIMEOUT)),
            write_waits: false,
        }
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
        self.read_timer.as_mut().reset(Instant::now() + timeout);
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

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.serving.load(Ordering::Acquire) > 0 {
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
        match this.read_timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out(waits_for))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for TimedStream {
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Period;

    struct Server {
        address: std::net::SocketAddr,
        stage: tokio::sync::watch::Sender<Stage>,
        end: tokio::task::JoinHandle<End>,
    }

    async fn start(router: Router, change: impl FnOnce(&mut ServerConfig)) -> Server {
        let mut config = ServerConfig::default();
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stage, shutdown) = Shutdown::manual();
        let end = tokio::spawn(async move { serve(listener, router, &config, &shutdown).await });
        Server {
            address,
            stage,
            end,
        }
    }

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

    async fn read_answer(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "closed after {answer:?}"
            );
        }
        String::from_utf8(answer).unwrap()
    }

    /// The clock is stopped and jumps whenever everybody waits, so minutes pass at once.
    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_outlives_the_header_timeout_and_ends_after_the_idle_timeout() {
        let server = start(hello(), |config| {
            config.header_timeout = Period::seconds(10);
            config.idle_timeout = Period::seconds(120);
        })
        .await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        read_answer(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        stream.write_all(REQUEST).await.unwrap();
        read_answer(&mut stream).await;
        let idle_from = Instant::now();
        assert_eq!(stream.read_buf(&mut Vec::new()).await.unwrap(), 0);
        assert!(
            idle_from.elapsed() >= Duration::from_secs(119),
            "{:?}",
            idle_from.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_trickles_in_ends_the_connection() {
        let server = start(hello(), |config| {
            config.header_timeout = Period::seconds(10)
        })
        .await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let started = Instant::now();
        for byte in b"GET / HTTP/1.1\r\nhost: slow" {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            if started.elapsed() > Duration::from_secs(13) {
                break;
            }
        }
        // Closed or reset: either way the slot is free again.
        let ended = stream.read_buf(&mut Vec::new()).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }

    #[tokio::test]
    async fn draining_waits_for_the_request_in_flight() {
        let (release, gate) = tokio::sync::watch::channel(false);
        let entered = Arc::new(tokio::sync::Notify::new());
        let inside = Arc::clone(&entered);
        let slow = get(move || {
            let (mut gate, inside) = (gate.clone(), Arc::clone(&inside));
            async move {
                inside.notify_one();
                gate.wait_for(|open| *open).await.unwrap();
                "hello"
            }
        });
        let server = start(Router::new().route("/", slow), |_| {}).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        entered.notified().await;
        server.stage.send_replace(Stage::Draining);
        // The listener is gone before the request in flight is answered.
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!server.end.is_finished());
        release.send_replace(true);
        assert!(read_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert_eq!(server.end.await.unwrap(), End::Drained);
    }

    #[tokio::test]
    async fn a_second_signal_ends_at_once_and_says_what_is_left() {
        let entered = Arc::new(tokio::sync::Notify::new());
        let inside = Arc::clone(&entered);
        let stuck = get(move || {
            inside.notify_one();
            std::future::pending::<&str>()
        });
        let server = start(Router::new().route("/", stuck), |_| {}).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        entered.notified().await;
        server.stage.send_replace(Stage::Forced);
        assert_eq!(server.end.await.unwrap(), End::Forced { connections: 1 });
    }
}
