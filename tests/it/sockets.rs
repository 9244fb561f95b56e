//! Sockets that somebody else holds, as systemd does it.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use embedgate_test_support::{config_file, embedgate, send_signal, tiny_bge_m3};
use serde_json::json;

/// The first descriptor that systemd hands over.
const FIRST: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";

struct Server(Child);

impl Server {
    /// Starts a server with this socket, and waits until it is ready.
    fn start(socket: OwnedFd, config: &str) -> Self {
        let file = config_file(config);
        let program = embedgate();
        let mut command = Command::new("sh");
        command.args(["-c", FIRST, "sh"]).arg(program.get_program());
        command.arg("--config").arg(file.path());
        let mut child = command
            .stdin(Stdio::from(socket))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("ready")));
        assert!(ready.is_some(), "the server ended");
        // The rest is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    fn stop(mut self) {
        send_signal(&self.0, libc::SIGTERM);
        assert!(self.0.wait().unwrap().success());
    }
}

fn config() -> String {
    let path = tiny_bge_m3();
    format!(
        "[auth]\nmode = \"none\"\n[models.m]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_exchanged_without_a_refused_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/embeddings", listener.local_addr().unwrap());
    let socket = || listener.try_clone().unwrap().into();
    let (is_over, n_answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut server = Server::start(socket(), &config());
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (url, is_over, n) = (url.clone(), Arc::clone(&is_over), Arc::clone(&n_answered));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    // A connection of its own each time: one that lives on may be closed between two requests.
                    let client = embedgate_test_support::client();
                    let request = client.post(&url).header("connection", "close");
                    let body = json!({ "model": "m", "input": "one" });
                    let response = request.json(&body).send().await.unwrap();
                    assert_eq!(response.status(), 200);
                    n.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let before = n_answered.load(Ordering::Relaxed);
        while n_answered.load(Ordering::Relaxed) < before + 20 {
            tokio::task::yield_now().await;
        }
        let next = tokio::task::block_in_place(|| {
            server.stop();
            Server::start(socket(), &config())
        });
        server = next;
    }
    is_over.store(true, Ordering::Relaxed);
    for asked in asking {
        asked.await.unwrap();
    }
    server.stop();
}

#[test]
fn a_path_is_handed_over_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let config = format!("server.listen = \"127.0.0.1:0\"\n{}", config());
    let server = Server::start(listener.into(), &config);
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    use std::io::{Read, Write};
    let mut stream = stream;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop();
}
