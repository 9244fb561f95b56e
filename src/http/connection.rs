//! Accepts connections and serves each until it ends, within limits of number and time.
//!
//! axum's own `serve` sets no timer for headers and no limit; the timers of a connection are `TimedStream`'s.

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderValue, Version,
        header::{CONNECTION, HOST},
    },
};
use embedgate_config::ServerConfig;
use embedgate_metrics::Metrics;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::Instant,
};
use tower::ServiceExt;

use super::{
    connection_slots::{ConnectionSlot, ConnectionSlots},
    idle::IdleHandle,
    listener::{Listener, Stream},
    proxies::{self, TrustedProxies},
    serving::Serving,
    stream::TimedStream,
    tidy_path,
    tls::{self, Tls},
};
use crate::shutdown::{Shutdown, Stage};

/// The longest header of a request, and what a connection buffers of a body before it is asked for.
const MAX_HEADER: usize = 64 << 10;
/// The same of HTTP/2, where a connection has many requests at once.
const MAX_HEADER_LIST: u32 = 16 << 10;
/// When the server ends, a connection whose first request may be on its way has this time for it; one of HTTP/2 that is idle has it to
/// confirm its end.
const LAST_GRACE: Duration = Duration::from_secs(1);
/// Requests of one connection of HTTP/2 at once.
const MOST_STREAMS: u32 = 128;
/// Bytes of a body that a client of HTTP/2 may send before we have read them: of one request, and of a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// A client of HTTP/2 that takes back so many requests before we have seen them is cut off.
///
/// Source: CVE-2023-44487; hyper's own default is 20, and clients that end many requests at once reach it.
const MOST_RESETS: usize = 64;

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

impl End {
    /// The end of two listeners.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Drained, end) | (end, Self::Drained) => end,
            (Self::Forced { connections: one }, Self::Forced { connections: other }) => {
                Self::Forced {
                    connections: one + other,
                }
            }
        }
    }
}

/// On a request that does not name one host. Of two, a proxy before the gateway may believe another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadHost {
    /// So many are named.
    pub(super) n_hosts: usize,
}

/// The other end of a request's connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// The client's address, as trusted proxies tell it; none of a socket of this machine.
    pub(super) address: Option<IpAddr>,
    /// The names that its certificate is for.
    pub(super) names: Arc<[String]>,
}

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
    /// TLS, where the listener has it.
    pub(crate) tls: Option<&'a Arc<Tls>>,
    /// True where connections begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

/// The parts that all connections share.
struct Shared {
    router: Router,
    config: ServerConfig,
    proxies: TrustedProxies,
    tls: Option<Arc<Tls>>,
    proxy_protocol: bool,
    shutdown: Shutdown,
    /// True once it was said that a connection is of no trusted proxy.
    warned: AtomicBool,
}

/// Serves connections until the shutdown begins and `drain_delay` is over, then waits for requests in flight.
pub(crate) async fn serve(listener: Listener, router: Router, server: Server<'_>) -> End {
    let Server {
        config,
        shutdown,
        metrics,
        tls,
        proxy_protocol,
    } = server;
    let shared = Arc::new(Shared {
        router,
        config: config.clone(),
        proxies: TrustedProxies::new(&config.trusted_proxies, &config.client_address_header),
        tls: tls.cloned(),
        proxy_protocol,
        shutdown: shutdown.clone(),
        warned: AtomicBool::new(false),
    });
    let slots = ConnectionSlots::new(config.max_connections);
    let draining = watch::Sender::new(false);
    let closing = closing(config, shutdown);
    tokio::pin!(closing);
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = listener.accept() => accepted,
        };
        let slot = tokio::select! {
            biased;
            () = &mut closing => break,
            slot = slots.take() => slot,
        };
        let accepted = Accepted {
            stream,
            peer,
            idle: slots.idle.enter(),
            slot,
        };
        let (shared, is_draining) = (Arc::clone(&shared), draining.subscribe());
        let metrics = metrics.clone();
        metrics.connections().inc();
        tokio::spawn(async move {
            // A broken connection is the client's business, and tells us nothing that we could act on.
            if let Err(error) = accepted.serve(&shared, is_draining).await {
                tracing::debug!(error = %error, "connection ended");
            }
            metrics.connections().dec();
        });
    }
    drop(listener);
    let connections = slots.n_taken(config.max_connections);
    draining.send_replace(true);
    tracing::info!(
        connections,
        "draining: no new connections, {connections} are open"
    );
    let left = || slots.n_taken(config.max_connections);
    tokio::select! {
        () = slots.all_given_back(config.max_connections) => End::Drained,
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

/// A connection that was accepted, before its first byte.
struct Accepted {
    stream: Stream,
    peer: Option<IpAddr>,
    idle: IdleHandle,
    slot: ConnectionSlot,
}

impl Accepted {
    /// Serves it to its end. What comes before the first request has the time of a header.
    async fn serve(
        self,
        shared: &Shared,
        is_draining: watch::Receiver<bool>,
    ) -> Result<(), Broken> {
        let Self {
            mut stream,
            peer,
            idle,
            slot,
        } = self;
        let config = &shared.config;
        let deadline = Instant::now() + config.header_timeout.0;
        let beginning = async {
            let client = match shared.proxy_protocol {
                false => Some(peer),
                true => {
                    shared.check_proxy(peer)?;
                    proxies::read_header(&mut stream).await?.map(Some)
                }
            };
            let Some(tls) = &shared.tls else {
                return Ok::<_, io::Error>((client, Begun::Plain(stream)));
            };
            let stream = tls.acceptor(slot.is_reserve).accept(stream).await?;
            Ok((client, Begun::Tls(Box::new(stream))))
        };
        let (client, begun) = tokio::select! {
            begun = tokio::time::timeout_at(deadline, beginning) => begun??,
            () = std::future::poll_fn(|cx| idle.poll_called(cx)) => {
                return Err("it made room for another connection".into());
            }
        };
        let arrival = |names: Vec<String>| Arrival {
            peer: Peer {
                address: client.unwrap_or(peer),
                names: names.into(),
            },
            proxies: match client {
                Some(_) => shared.proxies.clone(),
                // Where the proxy does not know the client, nor does what the client itself writes.
                None => TrustedProxies::default(),
            },
            idle,
            is_reserve: slot.is_reserve,
            deadline,
            shutdown: shared.shutdown.clone(),
        };
        let router = shared.router.clone();
        match begun {
            Begun::Plain(stream) => {
                let arrival = arrival(Vec::new());
                connection(stream, arrival, router, config)
                    .serve(is_draining)
                    .await
            }
            Begun::Tls(stream) => {
                let chain = stream.get_ref().1.peer_certificates();
                let names = chain.and_then(|chain| chain.first()).map(tls::names);
                let arrival = arrival(names.unwrap_or_default());
                connection(*stream, arrival, router, config)
                    .serve(is_draining)
                    .await
            }
        }
    }
}

impl Shared {
    /// Refuses a connection of the PROXY protocol that no trusted proxy makes.
    fn check_proxy(&self, peer: Option<IpAddr>) -> io::Result<()> {
        if self.proxies.include(peer) {
            return Ok(());
        }
        let message = "server.proxy_protocol: the connection is of none of server.trusted_proxies";
        if !self.warned.swap(true, Ordering::Relaxed) {
            let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
            tracing::warn!("{message}, but of {peer}; it is closed, and so are others");
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }
}

/// The reason why a connection ended early.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// A connection whose first request can come.
enum Begun {
    Plain(Stream),
    Tls(Box<tokio_rustls::server::TlsStream<Stream>>),
}

/// A new connection, before its first request.
struct Arrival {
    peer: Peer,
    proxies: TrustedProxies,
    idle: IdleHandle,
    is_reserve: bool,
    /// The time at which its first request must have come.
    deadline: Instant,
    shutdown: Shutdown,
}

/// A connection that is being served, and what is known of it.
struct Connection<C> {
    hyper: C,
    serving: Serving,
    /// True from its first byte on.
    begun: watch::Receiver<bool>,
}

impl<C: GracefulConnection<Error = Broken>> Connection<C> {
    /// Serves it to its end: its own, or the server's.
    async fn serve(self, mut is_draining: watch::Receiver<bool>) -> Result<(), Broken> {
        let Self {
            hyper,
            serving,
            mut begun,
        } = self;
        let mut hyper = pin!(hyper);
        tokio::select! {
            ended = hyper.as_mut() => return ended,
            // An error means that the server is gone.
            _ = is_draining.wait_for(|is| *is) => {}
        }
        // Its first request may lie in the system already: it is answered. hyper would end it unread.
        tokio::select! {
            ended = hyper.as_mut() => return ended,
            _ = begun.wait_for(|has| *has) => {}
            () = tokio::time::sleep(LAST_GRACE) => {}
        }
        hyper.as_mut().graceful_shutdown();
        loop {
            let was_quiet = serving.is_quiet();
            tokio::select! {
                ended = hyper.as_mut() => return ended,
                () = tokio::time::sleep(LAST_GRACE) => {}
            }
            // A client of HTTP/2 that is gone never confirms the end.
            if was_quiet && serving.is_quiet() {
                return Ok(());
            }
        }
    }
}

/// Serves one client's requests, of HTTP/1.1 or HTTP/2, until either side ends the connection or a timer does.
fn connection<S>(
    stream: S,
    arrival: Arrival,
    router: Router,
    config: &ServerConfig,
) -> Connection<impl GracefulConnection<Error = Broken> + Send + use<S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Arrival {
        peer,
        proxies,
        idle,
        is_reserve,
        deadline,
        shutdown,
    } = arrival;
    let timed = TimedStream::new(stream, config, idle, deadline);
    let (serving, begun) = (timed.serving(), timed.begun());
    let marks = serving.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let peer = Peer {
            address: proxies.client(peer.address, request.headers()),
            names: Arc::clone(&peer.names),
        };
        request.extensions_mut().insert(peer);
        let n_hosts = request.headers().get_all(HOST).iter().count();
        // HTTP/1.0 knows no hosts.
        if n_hosts > 1 || (n_hosts == 0 && request.version() == Version::HTTP_11) {
            request.extensions_mut().insert(BadHost { n_hosts });
        }
        if is_reserve {
            request.extensions_mut().insert(NoRoom);
        }
        let (router, guard) = (router.clone(), marks.enter());
        // A proxy that keeps the connection could send its next request while the server closes it.
        let is_last = shutdown.stage() != Stage::Running && request.version() <= Version::HTTP_11;
        async move {
            let request = tidy_path(request.map(axum::body::Body::new));
            let mut response = router.oneshot(request).await?;
            if is_last {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|body| guard.hold(body)))
        }
    });
    // hyper's own timer is longer than ours can be. It is set because hyper asks the stream for the next request, and so
    // lets our timers run, only where it has one.
    let longest = config.idle_timeout.0 + config.header_timeout.0;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if is_reserve {
        // A connection of HTTP/2 cannot be ended after one answer.
        builder = builder.http1_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(MAX_HEADER)
        .keep_alive(!is_reserve)
        .header_read_timeout(longest);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MOST_RESETS);
    Connection {
        hyper: builder
            .serve_connection(TokioIo::new(timed), service)
            .into_owned(),
        serving,
        begun,
    }
}

#[cfg(test)]
mod tests;
