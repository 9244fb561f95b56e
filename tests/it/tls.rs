//! TLS, HTTP/2, the socket of a path, and proxies, against the real program.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use embedgate_test_support::{Gateway, config_file, embedgate, run, tiny_bge_m3};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use reqwest::{Certificate, Client, Identity, Version};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A certificate authority, and the files that it signed.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for these names; returns it and its key, as PEM.
    fn sign(&self, names: Vec<SanType>) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a certificate of this machine as `server.pem` and `server.key`.
    fn write_server(&self) {
        let (certificate, key) = self.sign(vec![SanType::IpAddress([127, 0, 0, 1].into())]);
        for (name, text) in [("server.key", key), ("server.pem", certificate)] {
            // Whole, as tools that renew certificates do it.
            fs::write(self.path("new"), text).unwrap();
            fs::rename(self.path("new"), self.path(name)).unwrap();
        }
    }

    fn client(&self) -> reqwest::ClientBuilder {
        // Another test may be first: it installs the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let root = Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        Client::builder().tls_certs_only([root]).no_proxy()
    }

    /// The answer that a client with this certificate gets.
    fn answer(&self, gateway: &Gateway, identity: Option<(String, String)>) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(gateway.address()).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        let request = b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let mut answer = Vec::new();
        // Refused where this is read, or as soon as it is written.
        drop(stream.write_all(request));
        drop(stream.read_to_end(&mut answer));
        String::from_utf8(answer).unwrap()
    }

    fn identity(&self, name: SanType) -> Identity {
        let (certificate, key) = self.sign(vec![name]);
        Identity::from_pem(format!("{key}{certificate}").as_bytes()).unwrap()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn config(server: &str, auth: &str) -> String {
    let path = tiny_bge_m3();
    format!(
        "[server]\n{server}\n{auth}\n[models.m]\npath = {path:?}\nbackend = {{ type = \"candle\" }}\n"
    )
}

fn tls(authority: &Authority, more: &str) -> String {
    let (certificate, key) = (authority.path("server.pem"), authority.path("server.key"));
    format!("[server.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{more}")
}

const OPEN: &str = "[auth]\nmode = \"none\"";

fn https(gateway: &Gateway) -> String {
    format!("https://{}/v1/embeddings", gateway.address())
}

/// A gateway that is ready: `Gateway::start` would ask it without TLS.
fn started(config: &str) -> Gateway {
    let gateway = Gateway::start_loading(config, &[]);
    gateway.wait_for_log("INFO ready");
    gateway
}

async fn ask(client: &Client, url: &str) -> reqwest::Response {
    let body = json!({ "model": "m", "input": "one" });
    client.post(url).json(&body).send().await.unwrap()
}

#[tokio::test]
async fn tls_agrees_on_http2_and_serves_http1_too() {
    let authority = Authority::new();
    authority.write_server();
    let gateway = started(&config("", &format!("{}{OPEN}", tls(&authority, ""))));
    let url = https(&gateway);
    let both = authority.client().build().unwrap();
    let response = ask(&both, &url).await;
    assert_eq!(response.version(), Version::HTTP_2);
    let over_h2: Value = response.json().await.unwrap();
    let older = authority.client().http1_only().build().unwrap();
    let response = ask(&older, &url).await;
    assert_eq!(response.version(), Version::HTTP_11);
    let over_h1: Value = response.json().await.unwrap();
    assert_eq!(over_h1["data"], over_h2["data"]);
    // Requests of one connection at once.
    let many = (0..50).map(|_| ask(&both, &url));
    for response in futures_util::future::join_all(many).await {
        assert_eq!(response.status(), 200);
    }
    // The check of the program itself knows the certificate.
    let mut command = embedgate();
    command
        .arg("--config")
        .arg(gateway.config_file())
        .arg("health");
    let (code, _, said) = run(command.args(["--listen", gateway.address()]));
    assert_eq!(code, Some(0), "{said}");
    // Whoever speaks without TLS is not served, and harms nobody.
    let mut plain = TcpStream::connect(gateway.address()).unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(ask(&both, &url).await.status(), 200);
}

#[tokio::test]
async fn http2_is_spoken_without_tls_too() {
    let gateway = started(&config("", OPEN));
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("{}/v1/embeddings", gateway.url);
    for _ in 0..3 {
        let response = ask(&client, &url).await;
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(response.status(), 200);
    }
    // A large body and a large answer pass the windows of one stream.
    let inputs: Vec<String> = (0..1500)
        .map(|i| format!("text {i} {}", "a ".repeat(100)))
        .collect();
    let body = json!({ "model": "m", "input": inputs });
    let response = client.post(&url).json(&body).send().await.unwrap();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["data"].as_array().unwrap().len(), 1500);
    assert!(gateway.stop().contains("stopped"));
}

#[tokio::test]
async fn a_clients_certificate_is_a_principal() {
    let authority = Authority::new();
    authority.write_server();
    let ca = authority.path("ca.pem");
    let more = format!("client_ca = {ca:?}\n");
    let auth = "[auth]\nkeys = [{ certificate = \"ragflow.internal\", name = \"ragflow\" }, \
                { certificate = \"spiffe://cluster/indexer\", name = \"indexer\" }, { key = \"a-long-key\", name = \"by-key\" }]";
    let gateway = started(&config("", &format!("{}{auth}", tls(&authority, &more))));
    let url = https(&gateway);
    let stranger = Authority::new();
    let with = |identity| authority.client().identity(identity).build().unwrap();
    for (name, expected) in [
        (dns("ragflow.internal"), 200),
        (
            SanType::URI("spiffe://cluster/indexer".try_into().unwrap()),
            200,
        ),
        (dns("other.internal"), 401),
    ] {
        let response = ask(&with(authority.identity(name)), &url).await;
        assert_eq!(response.status().as_u16(), expected);
    }
    // Signed by somebody else: not even a request.
    let forged = stranger.sign(vec![dns("ragflow.internal")]);
    assert_eq!(authority.answer(&gateway, Some(forged)), "");
    let body = json!({ "model": "m", "input": "one" });
    // Without a certificate a key opens as ever, and nothing else does.
    let plain = authority.client().build().unwrap();
    assert_eq!(ask(&plain, &url).await.status(), 401);
    let keyed = plain.post(&url).bearer_auth("a-long-key").json(&body);
    assert_eq!(keyed.send().await.unwrap().status(), 200);
    let log = gateway.stop();
    assert!(
        log.contains("by ragflow") && log.contains("by indexer"),
        "{log}"
    );
}

#[tokio::test]
async fn a_certificate_may_be_required() {
    let authority = Authority::new();
    authority.write_server();
    let ca = authority.path("ca.pem");
    let more = format!("client_ca = {ca:?}\nrequire_client_certificate = true\n");
    let gateway = started(&config("", &format!("{}{OPEN}", tls(&authority, &more))));
    let url = https(&gateway);
    assert_eq!(authority.answer(&gateway, None), "");
    let own = authority.sign(vec![dns("anybody")]);
    let answer = authority.answer(&gateway, Some(own));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let identity = authority.identity(dns("anybody"));
    let with = authority.client().identity(identity).build().unwrap();
    assert_eq!(ask(&with, &url).await.status(), 200);
}

#[tokio::test]
async fn a_new_certificate_is_taken_under_load_without_a_failure() {
    let authority = Authority::new();
    authority.write_server();
    let gateway = started(&config("", &format!("{}{OPEN}", tls(&authority, ""))));
    let url = https(&gateway);
    let serial = || async {
        // A connection of its own each time.
        let client = authority.client().tls_info(true).build().unwrap();
        let response = ask(&client, &url).await;
        assert_eq!(response.status(), 200);
        let info = response
            .extensions()
            .get::<reqwest::tls::TlsInfo>()
            .unwrap();
        info.peer_certificate().unwrap().to_vec()
    };
    let before = serial().await;
    assert_eq!(serial().await, before);
    authority.write_server();
    let changed = async { while serial().await == before {} };
    tokio::time::timeout(Duration::from_secs(60), changed)
        .await
        .unwrap();
    // A pair that does not fit changes nothing.
    let after = serial().await;
    fs::write(
        authority.path("server.key"),
        authority.sign(vec![dns("a")]).1,
    )
    .unwrap();
    let read = async {
        while !gateway
            .log()
            .contains("cannot be used, the one before stays")
        {
            assert_eq!(serial().await, after);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .unwrap();
}

#[test]
fn files_that_are_wrong_are_named_at_the_start() {
    let authority = Authority::new();
    authority.write_server();
    let other = authority.sign(vec![dns("a")]).1;
    let cases: [(&str, Option<&str>, &str); 3] = [
        ("server.key", None, "server.key"),
        ("server.key", Some(&other), "do not fit together"),
        ("server.pem", Some("nothing"), "has no certificate"),
    ];
    for (name, text, expected) in cases {
        authority.write_server();
        match text {
            Some(text) => fs::write(authority.path(name), text).unwrap(),
            None => fs::remove_file(authority.path(name)).unwrap(),
        }
        let said = refused(&config("", &format!("{}{OPEN}", tls(&authority, ""))));
        assert!(said.contains(expected), "{said}");
    }
    let said = refused(&config("proxy_protocol = true", OPEN));
    assert!(said.contains("server.proxy_protocol"), "{said}");
    let keys = "[auth]\nkeys = [{ certificate = \"a\" }]";
    let said = refused(&config("", keys));
    assert!(said.contains("set server.tls.client_ca"), "{said}");
}

/// The words of a start that is refused.
fn refused(config: &str) -> String {
    let file = config_file(config);
    let mut command = embedgate();
    let (code, _, said) = run(command.arg("--config").arg(file.path()));
    assert_eq!(code, Some(78), "{said}");
    said
}

/// A request of HTTP/1.1 over any stream, and the whole answer.
fn raw(stream: &mut (impl Read + Write), more: &str) -> String {
    let body = r#"{"model":"m","input":"one"}"#;
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn the_socket_of_a_path_serves_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("embedgate.sock");
    let server = format!("unix_socket = {path:?}\nunix_socket_mode = \"0600\"");
    let gateway = started(&config(&server, OPEN));
    let answer = raw(&mut UnixStream::connect(&path).unwrap(), "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A second server does not take the path away from the first.
    let said = failed_start(&config(&server, OPEN));
    assert!(said.contains("another process listens"), "{said}");
    drop(gateway.stop());
    // One that has ended leaves a path that the next one takes.
    let gateway = started(&config(&server, OPEN));
    let answer = raw(&mut UnixStream::connect(&path).unwrap(), "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(gateway);
}

fn failed_start(config: &str) -> String {
    let file = config_file(config);
    let mut command = embedgate();
    let command = command.arg("--listen").arg("127.0.0.1:0");
    let (code, _, said) = run(command.arg("--config").arg(file.path()));
    assert_eq!(code, Some(1), "{said}");
    said
}

#[tokio::test]
async fn the_client_behind_a_trusted_proxy_is_in_the_log() {
    let server = "trusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true";
    let gateway = Gateway::start_loading(
        &format!("[log]\nformat = \"json\"\n{}", config(server, OPEN)),
        &[],
    );
    gateway.wait_for_log("\"ready\"");
    let connect = |header: &str| {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.write_all(header.as_bytes()).unwrap();
        stream
    };
    let header = "PROXY TCP4 203.0.113.7 127.0.0.1 4711 9100\r\n";
    let answer = raw(&mut connect(header), "x-request-id: by-protocol\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // A proxy in front of that one.
    let header = "PROXY TCP4 127.0.0.9 127.0.0.1 4711 9100\r\n";
    let forwarded = "x-request-id: by-header\r\nx-forwarded-for: 198.51.100.2\r\n";
    let answer = raw(&mut connect(header), forwarded);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Without the header the connection is closed.
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer));
    assert_eq!(answer, "");
    let log = gateway.stop();
    for (id, client) in [
        ("by-protocol", "203.0.113.7"),
        ("by-header", "198.51.100.2"),
    ] {
        let line = log.lines().find(|line| line.contains(id)).unwrap();
        assert!(line.contains(&format!("\"client\":\"{client}\"")), "{line}");
    }
}

/// A client of HTTP/2 that asks and takes back, as fast as it can.
#[tokio::test]
async fn requests_that_are_taken_back_at_once_cost_no_memory_and_harm_nobody() {
    let gateway = started(&config("", OPEN));
    let url = format!("{}/v1/embeddings", gateway.url);
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    assert_eq!(ask(&client, &url).await.status(), 200);
    let before = gateway.resident_kib();
    let address = gateway.address().to_owned();
    let attack = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        stream.write_all(&settings).unwrap();
        // GET / of host a, by the tables of HPACK; then RST_STREAM with CANCEL.
        let (headers, cancel) = ([0x82, 0x86, 0x84, 0x41, 1, b'a'], [0, 0, 0, 8]);
        let frame = |kind: u8, flags: u8, id: u32, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, flags][..], &id.to_be_bytes(), payload].concat()
        };
        for ids in (0..100_000_u32).collect::<Vec<_>>().chunks(500) {
            let one = |i: &u32| {
                [
                    frame(1, 5, 2 * i + 1, &headers),
                    frame(3, 0, 2 * i + 1, &cancel),
                ]
                .concat()
            };
            let bytes: Vec<u8> = ids.iter().flat_map(one).collect();
            if stream.write_all(&bytes).is_err() {
                return 2 * ids[0];
            }
        }
        200_000
    });
    let mut n_answered = 0;
    while !attack.is_finished() || n_answered < 20 {
        assert_eq!(ask(&client, &url).await.status(), 200);
        n_answered += 1;
    }
    assert!(attack.await.unwrap() > 0);
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
}
