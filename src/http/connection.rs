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
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::ServiceExt;

use super::{
    idle::{Place, Waiting},
    stream::TimedStream,
    tidy_path,
};
use crate::shutdown::{Shutdown, Stage};

/// After a failed accept, such as for want of file descriptors, it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest header of a request, and what a connection buffers of a body before it is asked for.
const MAX_HEADER: usize = 64 << 10;
/// What the system takes of an answer before the client does: more would hide from us how fast the client reads.
#[cfg(target_os = "linux")]
const MOST_UNSENT: u32 = 64 << 10;

/// Connections beyond `max_connections` that are served at once. Each is for one answer of a moment.
const RESERVE: usize = 64;
/// A connection that is told to make room ends within this time.
const TO_MAKE_ROOM: Duration = Duration::from_millis(50);
const NEVER_CLOSED: &str = "the semaphores are never closed";

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

/// Says that a connection came when all were busy: it is served no more than a probe or a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoRoom;

/// The places for connections.
struct Places {
    all: Arc<Semaphore>,
    /// Beyond `max_connections`, so that probes and refusals are answered when all are busy.
    reserve: Arc<Semaphore>,
    waiting: Waiting,
}

/// A connection's place, until it is dropped.
struct Slot {
    is_reserve: bool,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(max_connections: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(max_connections)),
            reserve: Arc::new(Semaphore::new(RESERVE)),
            waiting: Waiting::default(),
        }
    }

    /// A place for one more connection. Where all are taken, the one that has waited longest for a request makes room; where
    /// none waits, there are some in reserve.
    async fn take(&self) -> Slot {
        let slot = |is_reserve: bool, permit| Slot {
            is_reserve,
            _permit: permit,
        };
        let all = || Arc::clone(&self.all);
        if let Ok(permit) = all().try_acquire_owned() {
            return slot(false, permit);
        }
        // It may have got a request in this moment.
        if self.waiting.make_room()
            && let Ok(permit) = tokio::time::timeout(TO_MAKE_ROOM, all().acquire_owned()).await
        {
            return slot(false, permit.expect(NEVER_CLOSED));
        }
        if let Ok(permit) = Arc::clone(&self.reserve).try_acquire_owned() {
            return slot(true, permit);
        }
        tokio::select! {
            permit = all().acquire_owned() => slot(false, permit.expect(NEVER_CLOSED)),
            permit = Arc::clone(&self.reserve).acquire_owned() => slot(true, permit.expect(NEVER_CLOSED)),
        }
    }

    /// Waits until every place is given back.
    async fn all_given_back(&self, max_connections: usize) {
        for (places, n) in [(&self.all, max_connections), (&self.reserve, RESERVE)] {
            let all = places.acquire_many(u32::try_from(n).unwrap_or(u32::MAX));
            drop(all.await.expect(NEVER_CLOSED));
        }
    }

    fn n_taken(&self, max_connections: usize) -> usize {
        max_connections + RESERVE - self.all.available_permits() - self.reserve.available_permits()
    }
}

/// Serves connections until the shutdown begins and `drain_delay` is over, then waits for requests in flight.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    config: &ServerConfig,
    shutdown: &Shutdown,
    metrics: &Metrics,
) -> End {
    let places = Places::new(config.max_connections);
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
            slot = places.take() => slot,
        };
        let arrival = Arrival {
            peer,
            place: places.waiting.enter(),
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
    let left = || places.n_taken(config.max_connections);
    let drained = async {
        graceful.shutdown().await;
        places.all_given_back(config.max_connections).await;
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

/// What is known of a connection before its first byte.
struct Arrival {
    peer: IpAddr,
    place: Place,
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
        place,
        is_reserve,
    } = arrival;
    let timed = TimedStream::new(stream, config, place);
    let serving = timed.serving();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
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
        serving(hello(), &config)
    }

    fn serving(router: Router, config: &ServerConfig) -> DuplexStream {
        let (client, server) = tokio::io::duplex(16 << 10);
        let arrival = Arrival {
            peer: [127, 0, 0, 1].into(),
            place: Waiting::default().enter(),
            is_reserve: false,
        };
        tokio::spawn(connection(server, arrival, router, config));
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

    /// Reads a piece of an answer after each pause; returns how many bytes came.
    async fn read_slowly(piece: usize, pause: Duration) -> usize {
        let large = get(|| async { vec![b'x'; 1 << 20] });
        let mut stream = serving(Router::new().route("/", large), &ServerConfig::default());
        stream.write_all(REQUEST).await.unwrap();
        let (mut buffer, mut n) = (vec![0; piece], 0);
        while n < 1 << 20 {
            tokio::time::sleep(pause).await;
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(more) => n += more,
            }
        }
        n
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_its_answer_slowly_is_served_and_one_that_hardly_does_is_cut_off() {
        let slow = read_slowly(4 << 10, Duration::from_millis(1500)).await;
        assert!(slow >= 1 << 20, "80 KiB in 30 s: {slow}");
        let started = Instant::now();
        let too_slow = read_slowly(1 << 10, Duration::from_secs(1)).await;
        assert!(too_slow < 128 << 10, "30 KiB in 30 s: {too_slow}");
        assert!(started.elapsed() < Duration::from_secs(150));
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

    async fn open(server: &Server, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn idle_connections_make_room_and_busy_ones_leave_a_reserve() {
        let stuck = get(std::future::pending::<&str>);
        let room = get(|no_room: Option<axum::Extension<NoRoom>>| async move {
            if no_room.is_some() {
                "no hello"
            } else {
                "hello"
            }
        });
        let router = Router::new().route("/stuck", stuck).route("/", room);
        let server = start(router, |config| config.max_connections = 3).await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            let mut stream = open(&server, REQUEST).await;
            read_answer(&mut stream).await;
            idle.push(stream);
        }
        // The one that waits longest makes room, and no other.
        let mut fourth = open(&server, REQUEST).await;
        assert!(!read_answer(&mut fourth).await.contains("no hello"));
        assert_eq!(idle[0].read(&mut [0]).await.unwrap(), 0);
        for stream in &mut idle[1..] {
            stream.write_all(REQUEST).await.unwrap();
            read_answer(stream).await;
        }
        // Busy ones do not.
        let busy = b"GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut stuck = Vec::new();
        for _ in 0..3 {
            stuck.push(open(&server, busy).await);
        }
        loop {
            let mut beyond = open(&server, REQUEST).await;
            let answer = read_answer(&mut beyond).await;
            if answer.contains("no hello") {
                assert!(answer.contains("connection: close"), "{answer}");
                break;
            }
        }
    }

    #[tokio::test]
    async fn new_connections_are_served_as_long_as_the_drain_delay() {
        let server = start(hello(), |config| config.drain_delay = Period::seconds(3600)).await;
        server.stage.send_replace(Stage::Draining);
        let mut stream = open(&server, REQUEST).await;
        read_answer(&mut stream).await;
        server.stage.send_replace(Stage::Forced);
        server.end.await.unwrap();
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
