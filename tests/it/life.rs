//! The life of the process: loading, ready, draining, the end; and what each does to clients.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use embedgate_test_support::{Gateway, embedgate, run, send_signal, tiny_bge_m3, tiny_config};

#[tokio::test]
async fn sigterm_drains_and_exits_0_while_requests_in_flight_finish() {
    let gateway = Gateway::start(&tiny_config("[cache]\nmax_size = \"0B\""));
    let texts: Vec<String> = (0..512)
        .map(|i| format!("{i} {}", "words and words ".repeat(60)))
        .collect();
    let body = json!({"model": "tiny", "input": texts}).to_string();
    let client = embedgate_test_support::client();
    let url = format!("{}/v1/embeddings", gateway.url);
    // The head is answered only at the end, so the body's arrival at the server shows in nothing but its work.
    let in_flight = tokio::spawn(client.post(&url).body(body).send());
    let idle = TcpStream::connect(gateway.address()).await.unwrap();
    let is_queue = |name: &str| name.starts_with("embedgate_queue_inputs");
    loop {
        assert!(!in_flight.is_finished(), "nothing is left to drain");
        let metrics = gateway.metrics().await;
        if metrics.iter().any(|(name, n)| is_queue(name) && *n > 0.0) {
            break;
        }
    }
    gateway.signal(libc::SIGTERM);
    let answer = in_flight.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    // As long as a client reads, the answer is in flight.
    let answer = answer.bytes().await.unwrap();
    assert!(answer.len() > 100_000, "{}", answer.len());
    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("\"message\":\"stopped\"") && !log.contains("panic"),
        "{log}"
    );
    drop(idle);
}

#[tokio::test]
async fn new_connections_are_refused_while_draining_and_a_second_signal_ends_at_once() {
    let gateway = Gateway::start(&tiny_config("[server]\ndrain_timeout = \"1h\""));
    // A request whose body never ends keeps the drain waiting.
    let mut stuck = TcpStream::connect(gateway.address()).await.unwrap();
    stuck.write_all(b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n").await.unwrap();
    let mut continued = [0; 25];
    stuck.read_exact(&mut continued).await.unwrap();
    gateway.signal(libc::SIGTERM);
    while TcpStream::connect(gateway.address()).await.is_ok() {}
    gateway.signal(libc::SIGINT);
    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(1));
    // The last of those that were made to look may not be gone yet.
    assert!(log.contains("connections cut off: "), "{log}");
}

#[tokio::test]
async fn a_body_that_ends_while_draining_is_answered() {
    let gateway = Gateway::start(&tiny_config(""));
    let body = json!({"model": "tiny", "input": "a"}).to_string();
    let (first, second) = body.split_at(body.len() / 2);
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut continued = [0; 25];
    stream.read_exact(&mut continued).await.unwrap();
    stream.write_all(first.as_bytes()).await.unwrap();
    gateway.signal(libc::SIGTERM);
    gateway.wait_for_log("draining");
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// The key of a model one of whose files is a pipe that nobody writes to: its loading waits for ever.
fn stuck(folder: &Path) -> String {
    let pipe = folder.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    format!("sha256 = {{ {pipe:?} = {:?} }}\n", "0".repeat(64))
}

#[tokio::test]
async fn until_models_are_loaded_requests_get_503_with_retry_after() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start_loading(&tiny_config(&stuck(folder.path())), &[]);
    gateway.wait_for_log("loading model tiny");
    assert_eq!(gateway.get("/livez").await.status, 200);
    let health = gateway.get("/health").await;
    assert_eq!(
        (health.status, &health.body["error_type"]),
        (503, &json!("Unhealthy"))
    );
    for path in ["/readyz", "/v1/models"] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("5")),
            "{path}"
        );
        assert_eq!(answer.body["error"]["code"], "loading");
    }
    let answer = gateway.embed(&json!({"model": "tiny", "input": "a"})).await;
    assert_eq!(
        (answer.status, answer.body["error"]["type"].as_str()),
        (503, Some("server_error"))
    );
    // What still loads does not keep the process.
    gateway.signal(libc::SIGTERM);
    let (status, log) = gateway.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_signal_in_the_midst_of_loading_ends_the_process_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let config = tiny_config(&format!(
        "[models.waits-behind-tiny]\npath = {:?}\n{}",
        tiny_bge_m3(),
        stuck(folder.path())
    ));
    // Most moments are harmless: the library of the products is being made ready for some milliseconds. The other model is loaded
    // after it, in the order of names, so that the process never has all.
    for _ in 0..20 {
        let gateway = Gateway::start_loading(&config, &[]);
        gateway.wait_for_log("loading model tiny");
        gateway.signal(libc::SIGTERM);
        let (status, log) = gateway.wait();
        assert_eq!(status.code(), Some(0), "{status}: {log}");
    }
}

#[test]
fn a_port_in_use_is_said_with_the_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, tiny_config("").as_bytes()).unwrap();
    let (code, _, errors) = run(embedgate()
        .arg("--config")
        .arg(file.path())
        .args(["--listen", &address]));
    assert_eq!(code, Some(1));
    assert!(
        errors.contains(&address) && errors.contains("in use") && errors.contains("--listen"),
        "{errors}"
    );
}

#[tokio::test]
async fn without_onnx_runtime_candle_models_still_serve() {
    let more = format!(
        "[models.onnx]\npath = {:?}\nbackend = {{ type = \"onnx\" }}\n",
        tiny_bge_m3()
    );
    let config = tiny_config(&more);
    let mut gateway = Gateway::start_loading(&config, &[("ORT_DYLIB_PATH", "/no/such/library.so")]);
    gateway.wait_until_ready();
    assert_eq!(
        gateway
            .embed(&json!({"model": "tiny", "input": "a"}))
            .await
            .status,
        200
    );
    let answer = gateway.embed(&json!({"model": "onnx", "input": "a"})).await;
    assert_eq!(
        (answer.status, answer.body["error"]["code"].as_str()),
        (503, Some("model_unavailable"))
    );
    assert!(
        answer.message().contains("scripts/setup"),
        "{}",
        answer.message()
    );
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.body["models"],
        json!([
            {"id": "onnx", "status": "failed"},
            {"id": "tiny", "status": "ready", "device": "cpu", "precision": "f32"}
        ])
    );
    let log = gateway.stop();
    assert!(
        log.contains("/no/such/library.so") && log.contains("scripts/setup"),
        "{log}"
    );
}

#[test]
fn an_old_or_broken_library_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("libonnxruntime.so");
    std::fs::write(&garbage, "not a library").unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let config = format!(
        "[auth]\nmode = \"none\"\n[models.m]\npath = {:?}\nbackend = {{ type = \"onnx\" }}\n[onnxruntime]\nlibrary = {garbage:?}\n",
        tiny_bge_m3()
    );
    std::io::Write::write_all(&mut file, config.as_bytes()).unwrap();
    let (code, _, errors) = run(embedgate()
        .args(["--listen", "127.0.0.1:0", "--config"])
        .arg(file.path()));
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("libonnxruntime.so") && errors.contains("scripts/setup"),
        "{errors}"
    );
}

#[tokio::test]
async fn kill_9_leaves_nothing_that_stops_the_next_start() {
    for _ in 0..3 {
        let gateway = Gateway::start(&tiny_config(""));
        assert_eq!(
            gateway
                .embed(&json!({"model": "tiny", "input": "a"}))
                .await
                .status,
            200
        );
        gateway.signal(libc::SIGKILL);
        let (status, _) = gateway.wait();
        assert_eq!(status.code(), None);
    }
}

#[test]
fn a_hangup_while_the_configuration_is_read_is_obeyed_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (config, whole) = (folder.path().join("config"), folder.path().join("whole"));
    std::fs::write(&whole, tiny_config("")).unwrap();
    let made = Command::new("mkfifo").arg(&config).status().unwrap();
    assert!(made.success());
    let mut command = embedgate();
    command.args(["--listen", "127.0.0.1:0", "--config"]);
    command.arg(&config).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // There is somebody who reads it from here on.
    let mut pipe = File::options().write(true).open(&config).unwrap();
    send_signal(&child, libc::SIGHUP);
    std::fs::rename(&whole, &config).unwrap();
    pipe.write_all(tiny_config("").as_bytes()).unwrap();
    drop(pipe);
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut lines = log.lines().map(Result::unwrap);
    let is_obeyed = |line: &String| line.contains("received SIGHUP: reloading");
    assert!(lines.any(|line| is_obeyed(&line)), "it ended");
    send_signal(&child, libc::SIGTERM);
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn systemd_is_told_when_the_program_listens_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let told = || {
        let mut message = [0; 100];
        let n = socket.recv(&mut message).unwrap();
        String::from_utf8(message[..n].to_vec()).unwrap()
    };
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let gateway = Gateway::start_loading(&tiny_config(""), &variables);
    assert_eq!(told().trim(), "READY=1");
    gateway.signal(libc::SIGTERM);
    assert_eq!(told().trim(), "STOPPING=1");
    assert_eq!(gateway.wait().0.code(), Some(0));
}
