//! Accepts connections and serves each until it ends, within limits of number and time.
//!
//! axum's own `serve` sets no timer for headers and no limit; the timers of a connection are `TimedStream`'s.

use std::{net::IpAddr, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{Version, header::HOST},
};
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
};
use tower::ServiceExt;

use super::{connection_slots::ConnectionSlots, idle::IdleHandle, stream::TimedStream, tidy_path};
use crate::shutdown::{Shutdown, Stage};

/// After a failed accept, such as for want of file descriptors, it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest header of a request, and what a connection buffers of a body before it is asked for.
const MAX_HEADER: usize = 64 << 10;
/// Bytes of an answer that the system takes before the client does: more would hide from us how fast the client reads.
#[cfg(target_os = "linux")]
const MOST_UNSENT: u32 = 64 << 10;

/// The way in which serving ended.
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

/// On a request that does not name one host. Of two, a proxy before the gateway may believe another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadHost {
    /// So many are named.
    pub(super) n_hosts: usize,
}

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) IpAddr);

/// Says that a connection came when all were busy: it is served no more than a probe or a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoRoom;

/// The parts of the server that all of its listeners share.
#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    /// Its settings.
    pub(crate) config: &'a ServerConfig,
    /// Its end.
    pub(crate) shutdown: &'a Shutdown,
    /// The counts of connections.
    pub(crate) metrics: &'a Metrics,
}

/// Serves connections until the shutdown begins and `drain_delay` is over, then waits for requests in flight.
pub(crate) async fn serve(listener: TcpListener, router: Router, server: Server<'_>) -> End {
    let Server {
        config,
        shutdown,
        metrics,
    } = server;
    let slots = ConnectionSlots::new(config.max_connections);
    let graceful = GracefulShutdown::new();
    let closing = closing(config, shutdown);
    tokio::pin!(closing);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = accept(&listener) => accepted,
        };
        let slot = tokio::select! {
            biased;
            () = &mut closing => break,
            slot = slots.take() => slot,
        };
        let arrival = Arrival {
            peer,
            idle: slots.idle.enter(),
            is_reserve: slot.is_reserve,
        };
        let connection = connection(stream, arrival, router.clone(), config);
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
    let left = || slots.n_taken(config.max_connections);
    let drained = async {
        graceful.shutdown().await;
        slots.all_given_back(config.max_connections).await;
    };
    tokio::select! {
        () = drained => End::Drained,
        () = tokio::time::sleep(config.drain_timeout.0) => End::Forced { connections: left() },
        () = shutdown.reached(Stage::Forced) => End::Forced { connections: left() },
    }
}

/// Waits for the first signal, and then as long as those who send requests need to see that `/readyz` says no.
async fn closing(config: &ServerConfig, shutdown: &Shutdown) {
    shutdown.reached(Stage::Draining).await;
    if config.drain_delay.0 > Duration::ZERO {
        tracing::info!(
            "not ready any more, and still accepting for {}",
            config.drain_delay
        );
    }
    tokio::select! {
        () = tokio::time::sleep(config.drain_delay.0) => {}
        () = shutdown.reached(Stage::Forced) => {}
    }
}

/// A new connection, before its first byte.
struct Arrival {
    peer: IpAddr,
    idle: IdleHandle,
    is_reserve: bool,
}

/// Serves one client's requests, one after another, until either side ends the connection or a timer does.
fn connection<S>(
    stream: S,
    arrival: Arrival,
    router: Router,
    config: &ServerConfig,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival {
        peer,
        idle,
        is_reserve,
    } = arrival;
    let timed = TimedStream::new(stream, config, idle);
    let serving = timed.serving();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        let n_hosts = request.headers().get_all(HOST).iter().count();
        // HTTP/1.0 knows no hosts.
        if n_hosts > 1 || (n_hosts == 0 && request.version() == Version::HTTP_11) {
            request.extensions_mut().insert(BadHost { n_hosts });
        }
        if is_reserve {
            request.extensions_mut().insert(NoRoom);
        }
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
        .max_buf_size(MAX_HEADER)
        .keep_alive(!is_reserve)
        .header_read_timeout(longest);
    builder.serve_connection(TokioIo::new(timed), service)
}

async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small answers must not wait for more data; if it cannot be set, they do.
                drop(stream.set_nodelay(true));
                #[cfg(target_os = "linux")]
                drop(socket2::SockRef::from(&stream).set_tcp_notsent_lowat(MOST_UNSENT));
                return (stream, peer.ip());
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
