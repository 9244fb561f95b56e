//! Requests that are wrong: each gets its 4xx with a JSON envelope that names the thing; none a 5xx, a panic or a hang.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use embedgate_test_support::{Gateway, tiny_config};

/// Body, and what the message must hold.
fn bodies() -> Vec<(Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        // Not JSON, or not an object.
        (text(""), "the body is empty"),
        (text("   \n"), "the body is empty"),
        (text("{"), "not valid JSON"),
        (text("}"), "not a JSON object"),
        (text("[]"), "not a JSON object"),
        (text("null"), "not a JSON object"),
        (text("\"hello\""), "not a JSON object"),
        (text("42"), "not a JSON object"),
        (text("true"), "not a JSON object"),
        (text("hello"), "not a JSON object"),
        (text("<xml/>"), "not a JSON object"),
        (text("model=tiny&input=a"), "not a JSON object"),
        (text("{\"input\": \"a\""), "not valid JSON"),
        (text("{\"input\": \"a\",}"), "not valid JSON"),
        (text("{\"input\": \"a\"} trailing"), "not valid JSON"),
        (
            text("{\"input\": \"a\"}{\"input\": \"b\"}"),
            "not valid JSON",
        ),
        (text("{'input': 'a'}"), "not valid JSON"),
        (text("{input: \"a\"}"), "not valid JSON"),
        (
            text("{\"input\": \"a\", \"input\": \"b\"}"),
            "duplicate field",
        ),
        (text("{\"input\": \"unterminated}"), "not valid JSON"),
        (text("{\"input\": \"line\nbreak\"}"), "control character"),
        (text("{\"input\": NaN}"), "not valid JSON"),
        (text("{\"input\": undefined}"), "not valid JSON"),
        // Not Unicode.
        (
            b"{\"input\": \"\xff\"}".to_vec(),
            "not valid UTF-8 at byte 11",
        ),
        (b"{\"input\": \"\xc3\"}".to_vec(), "not valid UTF-8"),
        (b"{\"input\": \"\xed\xa0\x80\"}".to_vec(), "not valid UTF-8"),
        (b"\xff\xfe{\x00".to_vec(), "not valid UTF-8 at byte 0"),
        (text(r#"{"input": "\ud800"}"#), "input is not valid JSON"),
        (
            text(r#"{"input": ["ok", "\udc00 lone"]}"#),
            "input[1]: lone leading surrogate",
        ),
        (
            text(r#"{"input": "\ud800\ud800"}"#),
            "input is not valid JSON",
        ),
        (text(r#"{"input": "\ud83d"}"#), "input is not valid JSON"),
        (
            text(r#"{"model": "\udfff", "input": "a"}"#),
            "model is not valid JSON",
        ),
        (text(r#"{"input": "\x41"}"#), "invalid escape"),
        (text(r#"{"input": "\u12"}"#), "invalid escape"),
        // Nesting.
        (
            format!("{{\"input\": {}}}", "[".repeat(100_000)).into_bytes(),
            "not valid JSON",
        ),
        (
            format!(
                "{{\"input\": {}{}}}",
                "[".repeat(50_000),
                "]".repeat(50_000)
            )
            .into_bytes(),
            "input",
        ),
        (
            format!(
                "{{\"input\": {}1{}}}",
                "{\"a\":".repeat(50_000),
                "}".repeat(50_000)
            )
            .into_bytes(),
            "input",
        ),
        ("[".repeat(1_000_000).into_bytes(), "not a JSON object"),
        ("{\"input\":".repeat(100_000).into_bytes(), "not valid JSON"),
    ];
    let json_cases: Vec<(Value, &str)> = vec![
        // input
        (json!({}), "input is missing"),
        (json!({"model": "tiny"}), "input is missing"),
        (json!({"input": null}), "input is missing"),
        (json!({"inputs": "a"}), "input is missing"),
        (json!({"input": []}), "at least one"),
        (json!({"input": {}}), "expected input to be a string"),
        (
            json!({"input": {"text": "a"}}),
            "expected input to be a string",
        ),
        (json!({"input": 5}), "expected input to be a string"),
        (json!({"input": 5.5}), "expected input to be a string"),
        (json!({"input": true}), "expected input to be a string"),
        (json!({"input": [null]}), "input[0]"),
        (json!({"input": ["a", null]}), "input[1]"),
        (json!({"input": ["a", 1]}), "input[1]: is a token id"),
        (json!({"input": ["a", [1]]}), "input[1]: is a list"),
        (json!({"input": [1, "a"]}), "input[1]: is a string"),
        (json!({"input": [1, [2]]}), "input[1]: is a list"),
        (json!({"input": [[1], 2]}), "input[1]: is a token id"),
        (json!({"input": [[1], "a"]}), "input[1]: is a string"),
        (
            json!({"input": [[1], []]}),
            "input[1]: a list of token ids must not be empty",
        ),
        (
            json!({"input": [[]]}),
            "input[0]: a list of token ids must not be empty",
        ),
        (json!({"input": [["a"]]}), "input[0]"),
        (json!({"input": [["a", "b"]]}), "input[0]"),
        (json!({"input": [[[1]]]}), "input[0]"),
        (json!({"input": [{"image": "a"}]}), "input[0]"),
        (json!({"input": ["a", {"image": "b"}]}), "input[1]"),
        (json!({"input": [true]}), "input[0]"),
        (json!({"input": [1.5]}), "input[0]"),
        (json!({"input": [[1, 2.5]]}), "input[0]"),
        (json!({"input": [-1]}), "token id -1 is below 0"),
        (json!({"input": [[5, -7]]}), "token id -7 is below 0"),
        (json!({"input": [4_294_967_296_u64]}), "too large"),
        (
            json!({"input": [[18_446_744_073_709_551_615_u64]]}),
            "too large",
        ),
        (json!({"input": [1e30]}), "input[0]"),
        (
            json!({"input": [100_277]}),
            "token id 100277 is not in cl100k_base",
        ),
        (
            json!({"input": [[9906], [4_294_967_295_u32]]}),
            "input[1]: token id 4294967295",
        ),
        (json!({"input": vec!["x"; 2049]}), "at most 2048"),
        (json!({"input": vec!["x"; 100_000]}), "at most 2048"),
        (json!({"input": vec![vec![1]; 2049]}), "at most 2048"),
        // encoding_format
        (
            json!({"input": "a", "encoding_format": "base65"}),
            "\"float\" or \"base64\", got \"base65\"",
        ),
        (
            json!({"input": "a", "encoding_format": "Base64"}),
            "encoding_format must be",
        ),
        (
            json!({"input": "a", "encoding_format": ""}),
            "encoding_format must be",
        ),
        (
            json!({"input": "a", "encoding_format": 64}),
            "encoding_format must be",
        ),
        (
            json!({"input": "a", "encoding_format": ["float"]}),
            "encoding_format must be",
        ),
        (
            json!({"input": "a", "encoding_format": true}),
            "encoding_format must be",
        ),
        (
            json!({"input": "a", "encoding_format": {}}),
            "encoding_format must be",
        ),
        (
            json!({"input": "a", "encoding_format": "x".repeat(10_000)}),
            "...",
        ),
        // dimensions
        (
            json!({"input": "a", "dimensions": -1}),
            "dimensions must be a whole number",
        ),
        (
            json!({"input": "a", "dimensions": 1.5}),
            "dimensions must be a whole number",
        ),
        (
            json!({"input": "a", "dimensions": "16"}),
            "dimensions must be a whole number",
        ),
        (
            json!({"input": "a", "dimensions": [16]}),
            "dimensions must be a whole number",
        ),
        (
            json!({"input": "a", "dimensions": true}),
            "dimensions must be a whole number",
        ),
        (
            json!({"input": "a", "dimensions": {}}),
            "dimensions must be a whole number",
        ),
        (json!({"input": "a", "dimensions": 65}), "at most 64"),
        (json!({"input": "a", "dimensions": i64::MAX}), "at most 64"),
        (
            json!({"input": "a", "dimensions": u64::MAX}),
            "dimensions must be a whole number from 1 to",
        ),
        (
            json!({"input": "a", "dimensions": 1e300}),
            "dimensions must be a whole number",
        ),
        // truncate
        (
            json!({"input": "a", "truncate": "yes"}),
            "truncate must be true or false",
        ),
        (
            json!({"input": "a", "truncate": 1}),
            "truncate must be true or false",
        ),
        (
            json!({"input": "a", "truncate": []}),
            "truncate must be true or false",
        ),
        (
            json!({"input": "long text ".repeat(9000), "truncate": false}),
            "takes at most 8192",
        ),
        // model
        (json!({"input": "a", "model": 5}), "model must be a string"),
        (
            json!({"input": "a", "model": ["tiny"]}),
            "model must be a string",
        ),
        (json!({"input": "a", "model": {}}), "model must be a string"),
        (
            json!({"input": "a", "model": true}),
            "model must be a string",
        ),
    ];
    cases.extend(
        json_cases
            .into_iter()
            .map(|(json, expected)| (json.to_string().into_bytes(), expected)),
    );
    cases
}

#[tokio::test]
async fn every_bad_body_gets_a_400_that_says_what_is_wrong() {
    let gateway = Gateway::start(&tiny_config(""));
    let cases = bodies();
    assert!(cases.len() >= 100, "{}", cases.len());
    for (body, expected) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = gateway.post("/v1/embeddings", body).await;
        assert_eq!(answer.status, 400, "{shown}: {}", answer.body);
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{shown}"
        );
        assert_eq!(
            answer.body["error"]["type"], "invalid_request_error",
            "{shown}"
        );
        assert!(
            answer.message().contains(expected),
            "{shown}: {}",
            answer.message()
        );
        assert!(
            answer.message().len() < 400,
            "{shown}: short messages only, got {}",
            answer.message().len()
        );
    }
    assert_eq!(gateway.vectors("tiny", &json!("still well")).await.len(), 1);
    let log = gateway.stop();
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test]
async fn unknown_models_routes_and_methods_are_named() {
    let gateway = Gateway::start(&tiny_config(""));
    for model in [
        "nope",
        "TINY",
        "tiny ",
        "../tiny",
        "tiny___OpenAI-API@x",
        "模型",
        &"x".repeat(100_000),
    ] {
        let answer = gateway.embed(&json!({"model": model, "input": "a"})).await;
        assert_eq!(
            (answer.status, answer.body["error"]["code"].as_str()),
            (404, Some("model_not_found")),
            "{model}"
        );
        assert!(
            answer.message().contains("tiny") && answer.message().len() < 300,
            "{}",
            answer.message()
        );
    }
    for path in [
        "/v1/embedding",
        "/v1",
        "/v1/embeddings/x",
        "/%00",
        "/v1/../etc/passwd",
        "/favicon.ico",
    ] {
        let answer = gateway.get(path).await;
        assert_eq!(
            (answer.status, answer.body["error"]["code"].as_str()),
            (404, Some("unknown_url")),
            "{path}"
        );
    }
    // In Cohere's words, since only its clients ask there.
    let cohere = gateway.get("/v2/nothing").await;
    assert_eq!(cohere.status, 404);
    assert!(cohere.body["message"].is_string(), "{}", cohere.body);
    let answer = gateway.get("/v1/embeddings").await;
    assert_eq!(
        (answer.status, answer.body["error"]["code"].as_str()),
        (405, Some("method_not_allowed"))
    );
    assert_eq!(gateway.post("/v1/models", "{}").await.status, 405);
}

#[tokio::test]
async fn a_body_of_100_mb_gets_413_and_costs_no_memory() {
    let gateway = Gateway::start(&tiny_config(""));
    let before = gateway.resident_kib();
    let stated = gateway.post("/v1/embeddings", vec![b' '; 100 << 20]).await;
    assert_eq!(
        (stated.status, stated.body["error"]["code"].as_str()),
        (413, Some("payload_too_large"))
    );
    assert!(
        stated.message().contains("server.max_body"),
        "{}",
        stated.message()
    );
    let chunks = (0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let chunked = gateway.post("/v1/embeddings", chunked).await;
    assert_eq!(chunked.status, 413);
    // 32 MiB is the largest body that is ever held.
    let grown = gateway.resident_kib().saturating_sub(before);
    assert!(grown < 80 << 10, "grew by {grown} KiB");
    let fits = json!({"model": "tiny", "input": "a", "padding": "x".repeat(20 << 20)});
    assert_eq!(
        gateway.embed(&fits).await.status,
        200,
        "ignored fields may be large"
    );
}

/// Sends bytes as they are, then the end of the stream, and returns all that comes back.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn broken_http_is_refused_and_harms_nobody() {
    let gateway = Gateway::start(&tiny_config(""));
    let bad = [
        "GARBAGE\r\n\r\n",
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: ten\r\n\r\n",
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST /v1/embeddings HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET http://[::1 HTTP/1.1\r\n\r\n",
    ];
    for request in bad {
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{request:?}: {answer}"
        );
    }
    let too_many: String = (0..500).map(|i| format!("x-header-{i}: {i}\r\n")).collect();
    let answer = raw(
        &gateway,
        format!("GET / HTTP/1.1\r\nhost: a\r\n{too_many}\r\n").as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let broken_off =
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"input\"";
    let answer = raw(&gateway, broken_off.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    assert_eq!(gateway.vectors("tiny", &json!("still well")).await.len(), 1);
}

#[tokio::test]
async fn expect_continue_and_chunked_bodies_work() {
    let gateway = Gateway::start(&tiny_config(""));
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let body = r#"{"model":"tiny","input":"a"}"#;
    let head = format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-type: application/json; \
         charset=utf-8\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = vec![0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 100 Continue"));
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let chunked = "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                   10\r\n{\"model\":\"tiny\",\r\nc\r\n\"input\":\"a\"}\r\n0\r\n\r\n";
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_packed_body_is_read_as_it_is_within_the_same_limits() {
    let gateway = Gateway::start(&tiny_config("[server]\nmax_body = \"64KiB\""));
    let pack = |body: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut writer, body).unwrap();
        writer.finish().unwrap()
    };
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = embedgate_test_support::client()
            .post(format!("{}/v1/embeddings", gateway.url))
            .header("content-encoding", encoding)
            .body(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let body = json!({"model": "tiny", "input": "packed"}).to_string();
    let plain = gateway.post("/v1/embeddings", body.clone()).await;
    for encoding in ["gzip", "GZIP"] {
        let (status, text) = send(encoding, pack(body.as_bytes())).await;
        assert_eq!(status, 200, "{text}");
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["data"], plain.body["data"]);
    }
    let bomb = pack(&vec![b' '; 50 << 20]);
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    let (status, text) = send("gzip", bomb).await;
    assert_eq!(status, 413, "{text}");
    for (encoding, body, expected) in [
        ("gzip", body.as_bytes().to_vec(), "not valid gzip"),
        (
            "gzip",
            pack(body.as_bytes())[..20].to_vec(),
            "not valid gzip",
        ),
        ("br", body.as_bytes().to_vec(), "or as gzip"),
    ] {
        let (status, text) = send(encoding, body).await;
        assert!(status == 400 && text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_request_names_one_host_and_a_body_without_end_is_not_read_on() {
    let gateway = Gateway::start(&tiny_config(""));
    for (hosts, status) in [
        ("", 400),
        ("Host: a\r\nHost: b\r\n", 400),
        ("Host: a\r\n", 200),
    ] {
        let request = format!("GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        let answer = answer_to(&gateway, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{hosts:?}: {answer}"
        );
    }
    // Refused by its path, and then sent without end: the answer comes after 128 MiB or 5 s, and the connection ends.
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    let mut sent = 0;
    while sent < 1 << 30 && stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    // What the system holds on both sides is sent too.
    assert!(sent < 256 << 20, "{sent} bytes were taken");
    // A client that asks whether it may send, and sends all the same, has its answer.
    let body = "x".repeat(100_000);
    let request = format!(
        "POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = answer_to(&gateway, request.as_bytes()).await;
    assert!(answer.contains(" 404 "), "{answer}");
}

/// Sends a request that asks for the end of the connection, and returns what comes back.
async fn answer_to(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
