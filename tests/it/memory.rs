//! The memory of requests: who holds it, and for how long.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use embedgate_test_support::{Gateway, client, tiny_config};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// A connection whose system takes little for a client that does not read.
fn small_connection(gateway: &Gateway) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: SocketAddr = gateway.address().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn send(stream: &mut TcpStream, headers: &str, length: usize, body: &[u8]) {
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // One who is refused in the midst of the body may be cut off.
    drop(stream.write_all(body));
}

/// About 850 KB of answer.
fn many() -> Vec<u8> {
    json!({"model": "tiny", "input": vec!["a"; 1024]})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_still_counted() {
    // A caller's share is 2 MiB, and each answer may take 1.4 MB.
    let gateway = Gateway::start(&tiny_config(
        "[server]\nmax_body = \"1MiB\"\nmax_bodies = \"8MiB\"",
    ));
    let body = many();
    let mut unread = small_connection(&gateway);
    send(&mut unread, "", body.len(), &body);
    let mut first = [0; 1];
    unread.read_exact(&mut first).unwrap();
    let ask = async |most_ms: &str| {
        let request = client().post(format!("{}/v1/embeddings", gateway.url));
        let request = request.header("x-request-timeout-ms", most_ms);
        request.body(body.clone()).send().await.unwrap().status()
    };
    // It waits for its turn as long as it may.
    assert_eq!(ask("300").await, 429);
    let mut answer = Vec::new();
    unread.read_to_end(&mut answer).unwrap();
    assert!(answer.len() > 500_000, "{}", answer.len());
    assert_eq!(ask("60000").await, 200);
}

#[tokio::test]
async fn bodies_that_never_end_take_no_more_than_their_callers_share() {
    let config = tiny_config("[server]\nmax_body = \"1MiB\"\nmax_bodies = \"4MiB\"").replace(
        "mode = \"none\"",
        "keys = [\"the-first-key\", \"the-second-key\"]",
    );
    let gateway = Gateway::start(&config);
    let mut open: Vec<TcpStream> = (0..9).map(|_| small_connection(&gateway)).collect();
    let part = vec![b' '; (1 << 20) - 1000];
    for stream in &mut open {
        let key = "authorization: Bearer the-first-key\r\n";
        send(stream, key, 1 << 20, &part);
        let request = client().post(format!("{}/v1/embeddings", gateway.url));
        let request = request.bearer_auth("the-second-key");
        let answer = request.body(r#"{"input": "a"}"#).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn a_header_that_never_ends_is_refused() {
    let gateway = Gateway::start(&tiny_config(""));
    let mut stream = small_connection(&gateway);
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").unwrap();
    // It may be cut off before all is sent.
    drop(stream.write_all(&[b'x'; 100 << 10]));
    let mut answer = Vec::new();
    // Refused with what it sent unread, it may be reset.
    drop(stream.read_to_end(&mut answer));
    let shown = String::from_utf8_lossy(&answer);
    assert!(shown.starts_with("HTTP/1.1 431 "), "{shown}");
}

#[tokio::test]
async fn token_ids_count_as_the_text_that_they_stand_for() {
    let gateway = Gateway::start(&tiny_config("[server]\nmax_body = \"1MiB\""));
    // 128 spaces each: 60 KB of digits are 1.3 MB of text.
    let flood = vec![58_040; 10_000];
    let answer = gateway.embed(&json!({"input": flood})).await;
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert!(
        answer.message().contains("1280000 bytes of text"),
        "{}",
        answer.body
    );
    let fits = gateway.embed(&json!({"input": flood[..1000]})).await;
    assert_eq!(fits.status, 200, "{}", fits.body);
}
