//! Accepts connections and serves each until it ends, within limits of number and time.
//!
//! axum's own `serve` sets no timer for headers and no limit; the timers of a connection are `TimedStream`'s.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use embedgate_config::ServerConfig;
use embedgate_metrics::Metrics;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulConnection, GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::ServiceExt;

use super::{stream::TimedStream, tidy_path};
use crate::shutdown::{Shutdown, Stage};

/// After a failed accept, such as for want of file descriptors, it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every request in flight was answered.
    Drained,
    /// The drain time was over, or a second signal came, with so many connections left.
    Forced {
        /// Connections that were cut off.
        connections: usize,
    },
}

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) IpAddr);

/// Serves connections until the shutdown begins, then waits for requests in flight.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    config: &ServerConfig,
    shutdown: &Shutdown,
    metrics: &Metrics,
) -> End {
    let slots = Arc::new(Semaphore::new(config.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.reached(Stage::Draining) => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, peer, slot) = accepted;
        let connection = connection(stream, peer, router.clone(), config);
        let connection = graceful.watch(connection);
        let metrics = metrics.clone();
        metrics.connections().inc();
        tokio::spawn(async move {
            // A broken connection is the client's business, and tells us nothing that we could act on.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection ended");
            }
            metrics.connections().dec();
            drop(slot);
        });
    }
    drop(listener);
    let connections = graceful.count();
    tracing::info!(
        connections,
        "draining: no new connections, {connections} are open"
    );
    let left = || config.max_connections - slots.available_permits();
    tokio::select! {
        () = drained(graceful, &slots, config.max_connections) => End::Drained,
        () = tokio::time::sleep(config.drain_timeout.0) => End::Forced { connections: left() },
        () = shutdown.reached(Stage::Forced) => End::Forced { connections: left() },
    }
}

/// Serves one client's requests, one after another, until either side ends the connection or a timer does.
fn connection<S>(
    stream: S,
    peer: IpAddr,
    router: Router,
    config: &ServerConfig,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let timed = TimedStream::new(stream, config);
    let serving = timed.serving();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        let (router, guard) = (router.clone(), serving.enter());
        async move {
            let response = router
                .oneshot(tidy_path(request.map(axum::body::Body::new)))
                .await;
            drop(guard);
            response
        }
    });
    // hyper's own timer is longer than ours can be. It is set because hyper asks the stream for the next request, and so
    // lets our timers run, only where it has one.
    let longest = config.idle_timeout.0 + config.header_timeout.0;
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(longest);
    builder.serve_connection(TokioIo::new(timed), service)
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
) -> (TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit) {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small answers must not wait for more data; if it cannot be set, they do.
                drop(stream.set_nodelay(true));
                return (stream, peer.ip(), slot);
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use embedgate_config::Period;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time::Instant,
    };

    use super::*;

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
        let end = tokio::spawn(async move {
            serve(listener, router, &config, &shutdown, &Metrics::new()).await
        });
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

    /// A connection in memory, where a stopped clock cannot race with the network.
    fn in_memory(change: impl FnOnce(&mut ServerConfig)) -> DuplexStream {
        let mut config = ServerConfig::default();
        change(&mut config);
        let (client, server) = tokio::io::duplex(64 << 10);
        tokio::spawn(connection(server, [127, 0, 0, 1].into(), hello(), &config));
        client
    }

    async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
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
        let mut stream = in_memory(|config| {
            config.header_timeout = Period::seconds(10);
            config.idle_timeout = Period::seconds(120);
        });
        stream.write_all(REQUEST).await.unwrap();
        read_answer(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        stream.write_all(REQUEST).await.unwrap();
        read_answer(&mut stream).await;
        let idle_from = Instant::now();
        assert_eq!(stream.read_buf(&mut Vec::new()).await.unwrap(), 0);
        let waited = idle_from.elapsed();
        assert!((119..=122).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends_after_the_header_timeout() {
        let mut stream = in_memory(|config| config.header_timeout = Period::seconds(10));
        let started = Instant::now();
        assert_eq!(stream.read_buf(&mut Vec::new()).await.unwrap(), 0);
        assert!(
            (9..=12).contains(&started.elapsed().as_secs()),
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_trickles_in_ends_the_connection() {
        let mut stream = in_memory(|config| config.header_timeout = Period::seconds(10));
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
