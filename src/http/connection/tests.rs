use std::sync::Arc;

use axum::routing::get;
use embedgate_config::Period;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::*;
use crate::http::idle::IdleConnections;

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
        let server = super::Server {
            config: &config,
            shutdown: &shutdown,
            metrics: &Metrics::new(),
            tls: None,
            proxy_protocol: false,
        };
        serve(Listener::Tcp(listener), router, server).await
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
        peer: Peer::default(),
        proxies: TrustedProxies::default(),
        idle: IdleConnections::default().enter(),
        is_reserve: false,
        deadline: Instant::now() + config.header_timeout.0,
        shutdown: Shutdown::manual().1,
    };
    // Never told to end.
    let running = tokio::sync::watch::Sender::new(false);
    let connection = connection(server, arrival, router, config);
    tokio::spawn(async move { connection.serve(running.subscribe()).await });
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
    // So that a proxy uses it no more when the server closes it.
    let answer = read_answer(&mut stream).await;
    assert!(answer.contains("connection: close"), "{answer}");
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
